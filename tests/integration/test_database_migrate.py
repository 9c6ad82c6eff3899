"""Migrations on a real PostgreSQL: forward only, recorded, and never past a changed file."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from server.database import migrate, statements
from server.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text(
        "CREATE TABLE first (a integer);\nINSERT INTO first VALUES (1);\n"
    )
    (tmp_path / "0002_second.sql").write_text("ALTER TABLE first ADD COLUMN b integer;\n")
    return tmp_path


async def run(dsn: str, folder: Path) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return await migrate.migrate(connection, folder)
    finally:
        await connection.close()


async def test_each_file_is_applied_once(empty_database: str, folder: Path) -> None:
    assert await run(empty_database, folder) == ["0001_first.sql", "0002_second.sql"]
    assert await run(empty_database, folder) == []


async def test_instances_that_start_together_apply_each_file_once(empty_database: str, folder: Path) -> None:
    applied = await asyncio.gather(*(run(empty_database, folder) for _ in range(5)))
    assert sorted(name for names in applied for name in names) == ["0001_first.sql", "0002_second.sql"]


async def test_changed_file_stops_the_start(empty_database: str, folder: Path) -> None:
    await run(empty_database, folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE first (a bigint);\n")
    with pytest.raises(ConfigurationError, match=r"0001_first\.sql was changed after it was applied"):
        await run(empty_database, folder)


async def test_line_ends_of_a_checkout_are_no_change(empty_database: str, folder: Path) -> None:
    await run(empty_database, folder)
    path = folder / "0001_first.sql"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert await run(empty_database, folder) == []


async def test_database_newer_than_the_release_stops_the_start(empty_database: str, folder: Path) -> None:
    await run(empty_database, folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(ConfigurationError, match="newer than this release"):
        await run(empty_database, folder)


async def test_failed_migration_leaves_nothing_of_itself(empty_database: str, folder: Path) -> None:
    (folder / "0003_third.sql").write_text("CREATE TABLE third (a integer); SELECT no_such_column;\n")
    with pytest.raises(ConfigurationError, match=r"0003_third\.sql failed: .*no_such_column"):
        await run(empty_database, folder)
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("SELECT to_regclass('third')") is None
    assert await connection.fetchval("SELECT count(*) FROM schema_migrations") == 2
    await connection.close()


def test_gap_in_the_numbers_is_refused(folder: Path) -> None:
    (folder / "0004_fourth.sql").write_text("SELECT 1;")
    with pytest.raises(ConfigurationError, match="0003 is next"):
        migrate.read_migrations(folder)


async def test_statement_that_does_not_fit_the_schema_names_its_file(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = tmp_path / "wrong_room" / "sql"
    sql.mkdir(parents=True)
    (sql.parent / "__init__.py").touch()
    (sql / "bad.sql").write_text("-- Parameters: none. Rows: one. Locks: none.\nSELECT * FROM nowhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    connection = await asyncpg.connect(empty_database)
    with pytest.raises(ConfigurationError, match=r"wrong_room/sql/bad\.sql .*nowhere"):
        await statements.check(connection, ["wrong_room"])
    await connection.close()


async def test_every_statement_fits_the_schema_of_this_release(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    await migrate.migrate(connection)
    assert await statements.check(connection) > 0
    await connection.close()
