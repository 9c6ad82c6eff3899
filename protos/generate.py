"""Regenerates the committed stubs beside their .proto; with ``--check`` only compares.

The stubs are committed so that an installed onecard never needs the generator.
"""

import filecmp
import os
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


def generate(target: Path) -> None:
    """Writes messages, services and their types of every .proto below ``onecard`` to ``target``."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("onecard/**/*.proto"))
    # The plugins stand beside this interpreter, whether or not its environment is activated.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    code = protoc.main(
        [
            "protoc",
            f"--proto_path={ROOT}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet,only_async:{target}",
            *sources,
        ]
    )
    if code != 0:
        raise SystemExit(code)


def main() -> None:
    if sys.argv[1:] != ["--check"]:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = sorted(path.relative_to(scratch) for path in Path(scratch).rglob("*_pb2*"))
        kept = sorted(
            path.relative_to(ROOT) for path in ROOT.rglob("*_pb2*.py*") if path.suffix in {".py", ".pyi"}
        )
        stale = [
            name
            for name in fresh
            if name in kept and not filecmp.cmp(ROOT / name, Path(scratch) / name, False)
        ]
        if fresh != kept or stale:
            raise SystemExit(
                f"stubs differ from their .proto, run 'make proto': {stale or set(fresh) ^ set(kept)}"
            )


if __name__ == "__main__":
    main()
