"""The generator process, ``python -m loadtests.generator``: a job on stdin, a tally on stdout.

Must patch before anything else is imported: gevent first the standard library, then gRPC before its first channel.
"""

from gevent import monkey  # type: ignore[import-untyped]

monkey.patch_all()

# The order is the point of this module.
from grpc.experimental import gevent as grpc_gevent  # noqa: E402

grpc_gevent.init_gevent()

from loadtests.generator_run import main  # noqa: E402

if __name__ == "__main__":
    main()
