"""The embedded PostgreSQL and its connections: durable, closed to others, back after every kind of end."""

import asyncio
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from running_instance import eventually, is_running

from server.database import postgres_host
from server.database.embedded import EmbeddedPostgres
from server.database.pool import HotPathConnection, acquired, connect, open_pool
from server.errors import ConfigurationError, DatabaseUnavailableError
from server.settings import Settings


async def test_settings_that_durability_and_privacy_rest_on(postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(postgres.dsn())
    wanted = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "jit": "off",
        "data_checksums": "on",
        "listen_addresses": "",
        "log_error_verbosity": "terse",
        "log_parameter_max_length": "0",
    }
    for name, value in wanted.items():
        assert await connection.fetchval("SELECT current_setting($1)", name) == value, name
    assert await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert await connection.fetchval("SELECT count(*) FROM pg_stat_statements") >= 0
    await connection.close()


async def test_socket_is_closed_to_others_and_peers_are_not_trusted(postgres: EmbeddedPostgres) -> None:
    assert stat.S_IMODE(postgres.socket_dir.stat().st_mode) == 0o700
    connection = await asyncpg.connect(postgres.dsn(user="postgres"))
    methods = await connection.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
    await connection.close()
    assert [row["auth_method"] for row in methods] == ["peer"]
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(postgres.dsn(user="somebody"))


async def test_committed_rows_survive_kill_9(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    await server.start()
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS a")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    eventually(server.has_exited)
    connection.terminate()
    await server.start()
    connection = await asyncpg.connect(server.dsn())
    assert await connection.fetchval("SELECT a FROM kept") == 7
    await connection.close()
    await server.stop()


@pytest.fixture
def other_process(data_dir: Path) -> Iterator[int]:
    """A process of PostgreSQL's own user that is no PostgreSQL."""
    account = postgres_host.service_account(data_dir)
    with subprocess.Popen(["sleep", "600"], user=account.pw_uid) as process:
        yield process.pid
        process.kill()


async def test_lock_files_that_name_another_process_do_not_stop_the_start(
    data_dir: Path, other_process: int
) -> None:
    server = EmbeddedPostgres(data_dir)
    await server.start()
    locks = [data_dir / "postgres" / "postmaster.pid", server.socket_dir / ".s.PGSQL.5432.lock"]
    texts = [lock.read_text().replace(str(server.pid), str(other_process), 1) for lock in locks]
    await server.stop()
    for lock, text in zip(locks, texts, strict=True):
        lock.write_text(text)
    await server.start()
    assert not server.has_exited()
    await server.stop()


@pytest.fixture
def deep_dir(data_dir: Path) -> Path:
    deep = data_dir / ("d" * 100)
    deep.mkdir(mode=0o711)
    return deep


async def test_long_path_puts_the_socket_elsewhere(deep_dir: Path) -> None:
    server = EmbeddedPostgres(deep_dir)
    await server.start()
    assert len(os.fsencode(server.socket_dir)) < 90
    connection = await asyncpg.connect(server.dsn())
    await connection.close()
    await server.stop()
    server.socket_dir.rmdir()


@pytest.fixture
def old_dir(data_dir: Path) -> Path:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("14\n")
    return data_dir


async def test_data_of_another_major_version_is_refused(old_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match="was written by PostgreSQL 14, this machine has"):
        await EmbeddedPostgres(old_dir).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a user to give up")
async def test_server_never_runs_as_root(postgres: EmbeddedPostgres) -> None:
    assert os.stat(f"/proc/{postgres.pid}").st_uid != 0


async def test_wrong_address_is_one_line_without_the_password() -> None:
    with pytest.raises(ConfigurationError) as refused:
        await connect("postgresql://core:hunter2@127.0.0.1:1/onecard")
    assert "127.0.0.1:1/onecard" in refused.value.message
    assert "hunter2" not in refused.value.message


async def test_connections_refuse_at_once_while_the_database_is_gone_and_return_with_it(
    data_dir: Path,
) -> None:
    server = EmbeddedPostgres(data_dir)
    await server.start()
    settings = Settings(data_dir=data_dir, socket_dir=server.socket_dir)
    pool = await open_pool(settings, settings.database_dsn, application_name="test")
    lane = HotPathConnection(settings, settings.database_dsn, application_name="test lane")
    hot = await lane.get()
    assert await hot.fetchval("SHOW plan_cache_mode") == "force_generic_plan"
    assert await hot.fetchval("SHOW enable_seqscan") == "off"
    async with acquired(pool) as connection:
        assert await connection.fetchval("SHOW enable_seqscan") == "on"
    await server.stop()
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError):
            await lane.get()
        with pytest.raises(DatabaseUnavailableError):
            async with acquired(pool):
                raise AssertionError("there is no database")
    await server.start()
    async with acquired(pool) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    for _ in range(100):
        try:
            hot = await lane.get()
            break
        except DatabaseUnavailableError:
            await asyncio.sleep(0.05)
    assert await hot.fetchval("SELECT 1") == 1
    await lane.close()
    await pool.close()
    await server.stop()
    assert server.pid is not None
    assert not is_running(server.pid)


def test_binaries_copied_out_of_a_closed_home_still_run(data_dir: Path) -> None:
    account = postgres_host.service_account(data_dir)
    found = postgres_host.find_binaries(data_dir, account)
    copied = postgres_host.copy_below(data_dir, found)
    assert copied.path.is_relative_to(data_dir)
    for name in ("postgres", "initdb"):
        shown = subprocess.run([copied.path / name, "--version"], capture_output=True, text=True, check=True)
        assert copied.version in shown.stdout
    assert postgres_host.copy_below(data_dir, found) == copied
