"""Fixtures of real processes: a data directory, ``onecard serve`` on it, a PostgreSQL of the session."""

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from running_instance import Instance

from server.database.embedded import EmbeddedPostgres


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Short enough for a socket, and open to the system user PostgreSQL runs as under root."""
    root = Path(tempfile.mkdtemp(prefix="onecard-"))
    for place in (root, root / "data"):
        place.mkdir(exist_ok=True)
        place.chmod(0o711)
    yield root / "data"
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def serve(data_dir: Path) -> Iterator[Callable[..., Instance]]:
    """Starts instances (on ``data_dir`` unless told otherwise) and stops every one of them."""
    instances: list[Instance] = []

    def start(*flags: str, workers: int = 1, on: Path = data_dir) -> Instance:
        instances.append(Instance(on, *flags, workers=workers))
        return instances[-1]

    yield start
    for instance in instances:
        instance.close()


@pytest.fixture(scope="session")
def postgres_dir() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="onecard-pg-"))
    root.chmod(0o711)
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="session")
async def postgres(postgres_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL with an empty database, shared by the session."""
    server = EmbeddedPostgres(postgres_dir)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def empty_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The address of a database of its own for one test."""
    name = f"test_{time.monotonic_ns()}"
    admin = await asyncpg.connect(postgres.dsn(user="postgres", database="postgres"))
    await admin.execute(f"CREATE DATABASE {name} OWNER onecard")
    yield postgres.dsn(database=name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
