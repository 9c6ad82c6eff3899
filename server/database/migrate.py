"""Brings the schema of the database up to this release: forward only, each step in a transaction of its own.

Applied files are recorded with a digest. A file that changed after it was applied, or a database that knows
more steps than this release, stops the start: running on would mean a schema nobody has seen.
"""

import hashlib
import logging
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import asyncpg

from server.errors import ConfigurationError

log = logging.getLogger(__name__)

# Advisory locks of one key are "onecard" and a number: 1 migrations (here), 2 election of the housekeeper
# (server/housekeeper.py), 3 versions of rules (0003, rulebook/sql/lock_approvals.sql), 4 numbering of events (0004),
# 7 archives (archive/sql/try_lock.sql). Claims of request ids and switch keys are hashes (engine/request_log.py);
# business dates have two keys, 1869505891 ("onec") and the date (0004, settlement/sql/lock_day.sql).
MIGRATION_LOCK_KEY = 0x6F6E656361726401
FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

CREATE_RECORD = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version       integer     NOT NULL CONSTRAINT schema_migrations_pkey PRIMARY KEY,
    name          text        NOT NULL,
    digest_sha256 text        NOT NULL,
    applied_at    timestamptz NOT NULL DEFAULT now()
)"""


@dataclass(frozen=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def digest_sha256(self) -> str:
        # Line ends depend on how the file was checked out, not on what it says.
        return hashlib.sha256(self.sql.replace("\r\n", "\n").encode()).hexdigest()


def read_migrations(folder: Traversable | None = None) -> list[Migration]:
    """The migrations of this release in order.

    Raises:
        ConfigurationError: a file name is wrong, or a number is missing or taken twice.
    """
    folder = folder if folder is not None else resources.files("server.database") / "migrations"
    migrations = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        match = FILE_NAME.fullmatch(file.name)
        if match is None:
            raise ConfigurationError(f"migration {file.name} must be named like 0001_name.sql")
        migrations.append(Migration(int(match[1]), file.name, file.read_text(encoding="utf-8")))
    for place, migration in enumerate(migrations, start=1):
        if migration.version != place:
            raise ConfigurationError(f"migration {migration.name} is out of order: number {place:04} is next")
    return migrations


async def migrate(connection: asyncpg.Connection, folder: Traversable | None = None) -> list[str]:
    """Applies what is missing and returns the names of the files applied.

    Locks: a session advisory lock, so that of several instances one migrates and the others wait for it.

    Raises:
        ConfigurationError: an applied file changed, the database is newer, or a migration fails.
    """
    migrations = read_migrations(folder)
    await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK_KEY)
    try:
        await connection.execute(CREATE_RECORD)
        rows = await connection.fetch(
            "SELECT version, name, digest_sha256 FROM schema_migrations ORDER BY version"
        )
        applied = {row["version"]: (row["name"], row["digest_sha256"]) for row in rows}
        _compare(migrations, applied)
        pending = [migration for migration in migrations if migration.version not in applied]
        for migration in pending:
            await _apply(connection, migration)
        return [migration.name for migration in pending]
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK_KEY)


def _compare(migrations: list[Migration], applied: dict[int, tuple[str, str]]) -> None:
    known = {migration.version: migration for migration in migrations}
    for version, (name, digest) in applied.items():
        if version not in known:
            raise ConfigurationError(
                f"the database is newer than this release: it has migration {name},"
                f" this release ends at {len(migrations):04}"
            )
        if known[version].digest_sha256 != digest:
            raise ConfigurationError(
                f"migration {known[version].name} was changed after it was applied:"
                " restore the file and write a new migration"
            )


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, digest_sha256) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.digest_sha256,
            )
    except asyncpg.PostgresError as error:
        message = error.args[0] if error.args else type(error).__name__
        raise ConfigurationError(f"migration {migration.name} failed: {message} ({error.sqlstate})") from None
    log.info("migration applied", extra={"migration": migration.name})
