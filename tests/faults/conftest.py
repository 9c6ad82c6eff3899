"""A core whose database lies behind a proxy that fails on demand."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from core_under_test import Core
from integration.running_instance import Instance
from tcp_proxy import TcpProxy

from crypto.key_store.software import SoftwareKeyStore
from server.database.embedded import EmbeddedPostgres
from server.development_ca import ensure_server_certificate


def open_directory(prefix: str) -> Path:
    """Short enough for a socket, and open to the system user PostgreSQL runs as under root."""
    root = Path(tempfile.mkdtemp(prefix=prefix))
    for place in (root, root / "data"):
        place.mkdir(exist_ok=True)
        place.chmod(0o711)
    return root


@dataclass(frozen=True)
class ProxiedCore:
    """The core, the proxy before its database, and the process."""

    core: Core
    proxy: TcpProxy
    instance: Instance


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
