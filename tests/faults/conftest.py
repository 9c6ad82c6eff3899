"""The core behind its proxy, and the seed of whatever is random."""

import asyncio
import random
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from core_under_test import Core, open_directory
from integration.running_instance import Instance
from proxied_core import ProxiedCore
from tcp_proxy import TcpProxy

from crypto.key_store.software import SoftwareKeyStore
from server.database.embedded import EmbeddedPostgres
from server.development_ca import ensure_server_certificate


@pytest.fixture
def rng(capsys: pytest.CaptureFixture[str]) -> random.Random:
    """Seeded anew for each run; the seed is printed."""
    seed = secrets.randbits(32)
    with capsys.disabled():
        print(f" seed={seed}", end="")  # noqa: T201 - a failure must be repeatable
    return random.Random(seed)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    root = open_directory("onecard-faults-")
    yield root / "data"
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="module")
async def proxied(directory: Path) -> AsyncIterator[ProxiedCore]:
    """One worker with two lanes: what a lane loses, the other must not hide."""
    server = EmbeddedPostgres(directory)
    await server.start()
    direct = server.dsn()
    socket_dir = Path(parse_qs(urlsplit(direct).query)["host"][0])
    proxy = TcpProxy(socket_dir / ".s.PGSQL.5432")
    port = await proxy.open()
    SoftwareKeyStore.create(directory / "keys")
    files = ensure_server_certificate(directory, host="127.0.0.1")
    instance = Instance(
        directory,
        *("--dsn", f"postgresql://onecard@127.0.0.1:{port}/onecard?sslmode=disable"),
        *("--tls-certificate", str(files.certificate)),
        *("--tls-key", str(files.key)),
        *("--tls-client-ca", str(files.authority)),
        *("--statement-timeout-ms", "1000"),
        workers=1,
    )
    facts = await asyncio.to_thread(instance.until_ready)
    # The tests look at the rows themselves, past the proxy.
    core = Core(data_dir=directory, facts=facts, dsn=direct)
    await core.open(cards=400)
    yield ProxiedCore(core, proxy, instance)
    await core.close()
    await asyncio.to_thread(instance.close)
    await proxy.close()
    await server.stop()
