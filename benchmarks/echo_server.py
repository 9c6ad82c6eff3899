"""The least a grpc.aio server can do: answer fixed bytes. Its rate is the ceiling of any unary core here.

It takes the core's method path, TLS with client certificates, port sharing and event loop, and leaves out
everything else: no interceptor, no protobuf, no database. ``python -m benchmarks.echo_server`` is one worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
import uvloop
from onecard.v1 import authorization_pb2 as pb

from benchmarks.generator_job import TlsFiles

SERVICE: Final = "onecard.v1.AuthorizationService"
READY: Final = "ready"
_STOP_TIMEOUT_S: Final = 10.0


def sample_response() -> bytes:
    """An approval as the core would answer it: the size is what counts."""
    return pb.AuthorizeResponse(
        response_code="00",
        reason=pb.DECISION_REASON_APPROVED,
        authorization_code="123456",
        rrn="632813123456",
        available_minor=12_345_678,
        currency_code="CNY",
        arpc=bytes(range(8)),
        business_date="20260101",
    ).SerializeToString()


async def serve(port: int, *, tls: TlsFiles) -> None:
    """Serves until SIGTERM.

    Args:
        port: shared with the other workers.
        tls: the server's own files; clients must show a certificate of ``tls.ca``.
    """
    response = sample_response()

    async def echo(_request: bytes, _context: object) -> bytes:
        return response

    server = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Authorize": handler}),))
    credentials = grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=tls.ca.read_bytes(),
        require_client_auth=True,
    )
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await server.start()
    sys.stdout.write(READY + "\n")
    sys.stdout.flush()
    await stopping.wait()
    await server.stop(0)


def reserve_port() -> tuple[socket.socket, int]:
    """Holds a free port that others may share; connections only go to sockets that listen."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held, int(held.getsockname()[1])


@contextlib.contextmanager
def echo_workers(count: int, *, tls: TlsFiles) -> Iterator[tuple[int, list[int]]]:
    """Runs echo workers on one port.

    Yields:
        The port and the workers' pids.
    """
    held, port = reserve_port()
    files = [str(path) for path in (tls.ca, tls.certificate, tls.key)]
    workers: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            command = [sys.executable, "-m", "benchmarks.echo_server", str(port), *files]
            workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline().strip() != READY:
                raise ChildProcessError("an echo worker did not start")
        yield port, [worker.pid for worker in workers]
    finally:
        held.close()
        for worker in workers:
            worker.terminate()
        for worker in workers:
            stop(worker)


def stop(process: subprocess.Popen[str]) -> None:
    """Waits for a process that was asked to end, and ends it when it does not."""
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def main() -> None:
    """Runs one worker: port, authorities, certificate and key come as arguments."""
    port, ca, certificate, key = sys.argv[1:]
    tls = TlsFiles(ca=Path(ca), certificate=Path(certificate), key=Path(key))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(port), tls=tls))


if __name__ == "__main__":
    main()
