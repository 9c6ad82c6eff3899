"""What the database records of archives, and the connection that archives and restores work on, one at a time."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import asyncpg

from server.archive.errors import ArchiveError
from server.archive.tables import Sums
from server.database import pool
from server.database.statements import load

STATEMENTS = load("server.archive")
# A statement over a whole date; the pool's own bound is for hot statements.
COMMAND_TIMEOUT_S = 3_600
LOCK_ATTEMPTS_MAX = 20
LOCK_PAUSE_S = 0.1
UNLOCK_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A row of ``archives``."""

    business_date: date
    generation: int
    table_name: str
    schema_version: int
    sums: Sums
    file_name: str
    file_bytes: int
    archived_at: datetime
    is_restored: bool


@contextlib.asynccontextmanager
async def sole_connection(dsn: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """A connection that holds the lock of archives.

    Raises:
        ArchiveError: another archives or restores.
        ConfigurationError: the database cannot be reached.
    """
    connection = await pool.connect(
        dsn, application_name="onecard archive", command_timeout=COMMAND_TIMEOUT_S
    )
    try:
        await _take_lock(connection)
        yield connection
    finally:
        await _give_back(connection)


async def _take_lock(connection: "asyncpg.Connection[Any]") -> None:
    """Waits a moment for the session of a process that was killed.

    Raises:
        ArchiveError: another process has the lock.
    """
    for _ in range(LOCK_ATTEMPTS_MAX):
        if await connection.fetchval(STATEMENTS["try_lock"]):
            return
        await asyncio.sleep(LOCK_PAUSE_S)
    raise ArchiveError("ARCHIVE_BUSY", "another process archives or restores on this database")


async def _give_back(connection: "asyncpg.Connection[Any]") -> None:
    """Frees the lock at once where that can be said; with the session it ends anyway, and any open transaction too."""
    try:
        if not connection.is_closed() and not connection.is_in_transaction():
            await connection.execute(STATEMENTS["unlock"], timeout=UNLOCK_TIMEOUT_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        log.warning("the lock of archives ends with its session")
    finally:
        connection.terminate()


async def recorded_files(
    connection: "asyncpg.Connection[Any]", *, business_date: date | None = None, file_name: str | None = None
) -> list[RecordedFile]:
    """Files by date, generation and table."""
    rows = await connection.fetch(STATEMENTS["list_archives"], business_date, file_name)
    return [
        RecordedFile(
            business_date=row["business_date"],
            generation=row["generation"],
            table_name=row["table_name"],
            schema_version=row["schema_version"],
            sums=Sums(row["row_count"], row["amount_minor"], row["digest_sha256"]),
            file_name=row["file_name"],
            file_bytes=row["file_bytes"],
            archived_at=row["archived_at"],
            is_restored=row["is_restored"],
        )
        for row in rows
    ]
