"""Fixtures of real processes: a data directory, ``onecard serve`` on it, a PostgreSQL of the session."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from archive_trial import Trial
from core_under_test import Core, distant_cutoff, open_directory
from cryptography_requests import add_cryptography_keys
from engine_bench import CARDS, FIRST_ACCOUNT, Bench
from key_operators import Ceremony, add_key_participants
from pin_pad import PinPad
from rule_operators import RuleOffice, add_rule_participants
from rules_in_force import rule
from running_instance import Instance
from settlement_site import Site, make_database

from crypto.key_store.software import SoftwareKeyStore
from server.database import migrate
from server.database.embedded import EmbeddedPostgres
from server.database.pool import HOT_PATH_SETTINGS
from server.key_calls import KeyCalls
from server.keys.execution import AdministeredKeys
from server.settings import Settings, socket_dsn
from server.settlement.reconcile import reconcile


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


@pytest_asyncio.fixture(scope="session")
async def trial_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A migrated database with wallets, shared by the engine's tests."""
    admin = await asyncpg.connect(postgres.dsn(user="postgres", database="postgres"))
    await admin.execute("CREATE DATABASE trial OWNER onecard")
    database = await asyncpg.connect(postgres.dsn(database="trial"))
    await migrate.migrate(database)
    await database.execute(
        "INSERT INTO card_states (card_id, shard, status, transaction_amount_max_minor, day_amount_max_minor)"
        " SELECT n, 0, 2, 1, 1 FROM generate_series(1, $1) AS n",
        CARDS,
    )
    await database.execute(
        "INSERT INTO accounts (account_id, card_id, shard) SELECT $2 + n, n, 0 FROM generate_series(1, $1) AS n",
        CARDS,
        FIRST_ACCOUNT,
    )
    await database.close()
    yield postgres.dsn(database="trial")
    await admin.execute("DROP DATABASE trial WITH (FORCE)")
    await admin.close()


@pytest_asyncio.fixture
async def bench(trial_database: str, postgres: EmbeddedPostgres) -> AsyncIterator[Bench]:
    """Starts with empty wallets, and ends with drained engines and books that agree."""
    database = await asyncpg.connect(trial_database)
    bench = Bench(
        Settings(socket_dir=postgres.socket_dir),
        trial_database,
        database,
        superuser_dsn=postgres.dsn(user="postgres", database="trial"),
    )
    await bench.empty()
    yield bench
    for engine in bench.engines:
        async with asyncio.timeout(20):
            await engine.drain()
    proof = await reconcile(trial_database)
    await database.close()
    assert proof.clean


@pytest_asyncio.fixture(scope="module")
async def no_pin_asked(core: Core) -> AsyncIterator[None]:
    """Cash and transfers need no PIN: what PINs prove has tests of its own."""
    async with (
        rule(core, "limit", "cash", day_amount_max_minor=2_000_000),
        rule(core, "limit", "transfer", day_amount_max_minor=5_000_000),
    ):
        yield


@pytest.fixture(scope="session")
def key_instance() -> Iterator[Instance]:
    """An instance of its own for the tests that change keys: no other test may meet a rotated key."""
    root = open_directory("onecard-keys-")
    instance = Instance(root / "data", "--business-day-cutoff", distant_cutoff(), workers=2)
    yield instance
    instance.close()
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="session")
async def key_core(key_instance: Instance) -> AsyncIterator[Core]:
    facts = await asyncio.to_thread(key_instance.until_ready)
    core = Core(data_dir=key_instance.data_dir, facts=facts, dsn=socket_dsn(Path(facts["socket_dir"])))
    await core.open(cards=20)
    await add_key_participants(core)
    yield core
    await core.close()


@pytest.fixture(scope="session")
def ceremony(key_core: Core) -> Ceremony:
    return Ceremony(key_core)


@pytest.fixture(scope="session")
def rule_instance() -> Iterator[Instance]:
    """An instance of its own for the tests that change rules: no other test may meet another limit."""
    root = open_directory("onecard-rules-")
    instance = Instance(root / "data", "--business-day-cutoff", distant_cutoff(), workers=2)
    yield instance
    instance.close()
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="session")
async def rule_core(rule_instance: Instance) -> AsyncIterator[Core]:
    facts = await asyncio.to_thread(rule_instance.until_ready)
    core = Core(data_dir=rule_instance.data_dir, facts=facts, dsn=socket_dsn(Path(facts["socket_dir"])))
    await core.open(cards=20)
    await add_rule_participants(core)
    yield core
    await core.close()


@pytest.fixture(scope="session")
def office(rule_core: Core) -> RuleOffice:
    return RuleOffice(rule_core)


@pytest_asyncio.fixture(scope="session")
async def housekeeping(key_core: Core) -> AsyncIterator[tuple[Any, AdministeredKeys]]:
    """What the housekeeper's jobs for keys work with."""
    store = SoftwareKeyStore.open(key_core.data_dir / "keys")
    pool = await asyncpg.create_pool(key_core.dsn, min_size=1, max_size=2)
    yield pool, AdministeredKeys(store, KeyCalls(store))
    await pool.close()


@pytest.fixture(scope="session")
def pad(core: Core) -> PinPad:
    return PinPad(core.store)


@pytest_asyncio.fixture(scope="session")
async def cryptography_keys(core: Core) -> None:
    """Keys and participants of ``cryptography_requests``, in force on every worker."""
    await add_cryptography_keys(core)


@pytest_asyncio.fixture
async def site(postgres: EmbeddedPostgres, data_dir: Path) -> AsyncIterator[Site]:
    """A database of its own for settlement, with cards of two shards; no worker serves it yet."""
    name = f"settlement_{time.monotonic_ns()}"
    admin = await asyncpg.connect(postgres.dsn(user="postgres", database="postgres"))
    await make_database(admin, postgres.dsn(database=name), name)
    site = await Site.open(postgres.dsn(database=name), data_dir)
    yield site
    await site.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest_asyncio.fixture
async def trial(empty_database: str, tmp_path: Path) -> AsyncIterator[Trial]:
    """A migrated database to archive from, and a directory to archive into."""
    trial = await Trial.open(empty_database, tmp_path / "archive")
    yield trial
    await trial.database.close()


@pytest_asyncio.fixture
async def served(site: Site) -> AsyncIterator[Site]:
    """One worker serves the site, and sends signs of life."""
    await asyncio.to_thread(site.start_worker)
    yield site


@pytest_asyncio.fixture
async def connections(empty_database: str) -> AsyncIterator[list[Any]]:
    """Three connections to a migrated database, set as those of the lanes."""
    opened = [await asyncpg.connect(empty_database, server_settings=HOT_PATH_SETTINGS) for _ in range(3)]
    await migrate.migrate(opened[0])
    yield opened
    for connection in opened:
        await connection.close()
