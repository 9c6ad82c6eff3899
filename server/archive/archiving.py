"""Archives business dates: export, read back, compare, record, and only then drop, in one transaction for each date.

While the date is exported its partitions are locked against writing, which nobody does any more; reading goes on.
Killed at any moment, the database has either the partitions or the record with the sums, never both and never neither.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from server.archive.errors import ArchiveError, HeldBackError, as_archive_errors
from server.archive.record import STATEMENTS, sole_connection
from server.archive.tables import SCHEMA_VERSION, TABLES, ArchivedTable, Sums, partition_name
from server.engine.business_calendar import BusinessCalendar
from server.engine.request_log import look_back_date
from server.settings import Settings

log = logging.getLogger(__name__)

# A batch waits 300 ms for a lock: ours must give up well before, and leave it time between two attempts.
DROP_LOCK_TIMEOUT = "100ms"
DROP_ATTEMPTS_MAX = 120
DROP_PAUSE_MAX_S = 2.0
FREEZE_LOCK_TIMEOUT = "1s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePolicy:
    """Where files go, and which dates may go.

    Args:
        operations_days: days that operations stay online.
        request_log_hours: hours in which a request id is looked up.
    """

    directory: Path
    operations_days: int
    request_log_hours: int
    calendar: BusinessCalendar

    def is_due(self, business_date: date, *, today: date) -> bool:
        return (today - business_date).days > self.operations_days

    def is_looked_up(self, business_date: date, *, today: date) -> bool:
        """Whether a batch may still look for request ids there."""
        return business_date >= look_back_date(today, hours=self.request_log_hours)


def policy_of(settings: Settings) -> ArchivePolicy:
    """The policy that an instance was started with."""
    return ArchivePolicy(
        directory=settings.archives_dir,
        operations_days=settings.operations_days,
        request_log_hours=settings.request_log_hours_min,
        calendar=BusinessCalendar.of(time_zone=settings.time_zone, cutoff=settings.business_day_cutoff),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedDate:
    """A date that is now in files; ``sums`` by table name."""

    business_date: date
    generation: int
    sums: dict[str, Sums]


async def due_dates(connection: "asyncpg.Connection[Any]", policy: ArchivePolicy) -> list[date]:
    """Dates that have been online for long enough, the oldest first."""
    today = policy.calendar.business_date_of(await connection.fetchval(STATEMENTS["now"]))
    online = [row[0] for row in await connection.fetch(STATEMENTS["online_dates"])]
    return [business_date for business_date in online if policy.is_due(business_date, today=today)]


async def archive_due(
    dsn: str, policy: ArchivePolicy, *, dates_max: int | None = None
) -> AsyncIterator[ArchivedDate | tuple[date, ArchiveError]]:
    """Archives what is due; a date that must stay or fails is told with its reason and stops no other.

    Raises:
        ArchiveError: another process archives or restores.
    """
    async with sole_connection(dsn) as connection:
        for business_date in (await due_dates(connection, policy))[:dates_max]:
            try:
                yield await archive_date(connection, business_date, policy)
            except ArchiveError as error:
                yield business_date, error
            except Exception as error:  # whatever is wrong with one date must not keep the others
                log.error("business date was not archived", exc_info=error)
                yield (
                    business_date,
                    ArchiveError("ARCHIVE_FAILED", f"it failed: {type(error).__name__}, see the log"),
                )


async def archive_date(
    connection: "asyncpg.Connection[Any]", business_date: date, policy: ArchivePolicy
) -> ArchivedDate:
    """Archives one date, on a connection that holds the lock of archives.

    Raises:
        HeldBackError: something still needs its rows.
        ArchiveError: it is not online, or its file did not come out equal.
    """
    with as_archive_errors():
        return await _archive(connection, business_date, policy)


async def _archive(
    connection: "asyncpg.Connection[Any]", business_date: date, policy: ArchivePolicy
) -> ArchivedDate:
    policy.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    online = [row[0] for row in await connection.fetch(STATEMENTS["online_dates"])]
    if business_date not in online:
        raise ArchiveError("ARCHIVE_DATE_UNKNOWN", f"no operations of {business_date} are online")
    async with connection.transaction(isolation="repeatable_read"):
        await _freeze(connection, business_date)
        await _require_unneeded(connection, business_date, policy)
        generation = await connection.fetchval(STATEMENTS["next_generation"], business_date)
        sums: dict[str, Sums] = {}
        for table in TABLES:
            path = policy.directory / f"{partition_name(table, business_date)}.{generation}.parquet"
            sums[table.name] = await _export(connection, table, business_date, path)
            await connection.execute(
                STATEMENTS["insert_archive"],
                *(business_date, generation, table.name, SCHEMA_VERSION),
                *(sums[table.name].row_count, sums[table.name].amount_minor, sums[table.name].digest),
                *(path.name, path.stat().st_size),
            )
        await connection.execute(STATEMENTS["add_balances"], business_date, 1)
        await connection.execute(STATEMENTS["insert_event"], business_date, generation, "ARCHIVED")
        await _drop(connection, business_date)
    return ArchivedDate(business_date=business_date, generation=generation, sums=sums)


async def _freeze(connection: "asyncpg.Connection[Any]", business_date: date) -> None:
    """Locks the partitions against writing. Before the first query: the snapshot must be younger than the lock."""
    await connection.execute(f"SET LOCAL lock_timeout = '{FREEZE_LOCK_TIMEOUT}'")
    names = ", ".join(partition_name(table, business_date) for table in TABLES)
    try:
        await connection.execute(f"LOCK TABLE {names} IN SHARE MODE")
    except asyncpg.LockNotAvailableError:
        raise HeldBackError("a transaction writes into it") from None


async def _require_unneeded(
    connection: "asyncpg.Connection[Any]", business_date: date, policy: ArchivePolicy
) -> None:
    today = policy.calendar.business_date_of(await connection.fetchval(STATEMENTS["now"]))
    if policy.is_looked_up(business_date, today=today):
        raise HeldBackError("request ids are still looked up in it")
    for table in TABLES:
        found = [row[0] for row in await connection.fetch(STATEMENTS["columns"], table.name)]
        if found != sorted(table.columns):
            raise ArchiveError(
                "ARCHIVE_SCHEMA_UNKNOWN", f"{table.name} has other columns than archives of this release"
            )
    row = await connection.fetchrow(STATEMENTS["obstacles"], business_date)
    assert row is not None, "the statement gives one row"
    has_pending_holds, has_waiting_events, is_unsettled = row
    if has_pending_holds:
        raise HeldBackError("a hold of it is pending")
    if has_waiting_events:
        raise HeldBackError("events of it have no number yet")
    if is_unsettled:
        raise HeldBackError("its settlement is not closed, or its files are not made")


async def _export(
    connection: "asyncpg.Connection[Any]", table: ArchivedTable, business_date: date, path: Path
) -> Sums:
    """Writes the file, reads it back, and gives what the table holds; work on the file is done aside.

    Raises:
        ArchiveError: file and table differ.
    """
    from server.archive.parquet_file import ROWS_PER_GROUP, ArchiveWriter, read_sums

    writer = ArchiveWriter(path, table, business_date=business_date)
    # The driver closes no cursor before the end of its transaction, and a table with an open one cannot be dropped:
    # rolling back to here closes it.
    reading = connection.transaction()
    await reading.start()
    try:
        cursor = await connection.cursor(STATEMENTS[f"read_{table.name}"], business_date)
        while rows := await cursor.fetch(ROWS_PER_GROUP):
            assert list(rows[0].keys()) == list(table.columns), "the statement gives the table's columns"
            await asyncio.to_thread(writer.append, [tuple(row) for row in rows])
        await reading.rollback()
        exported = await asyncio.to_thread(writer.finish)
    except BaseException:
        writer.abandon()
        raise
    counted = await connection.fetchrow(STATEMENTS[f"measure_{table.name}"], business_date)
    assert counted is not None, "the statement gives one row"
    read_back = await asyncio.to_thread(read_sums, path)
    if read_back != exported or tuple(counted) != (exported.row_count, exported.amount_minor):
        raise ArchiveError("ARCHIVE_VERIFICATION_FAILED", f"{path.name} is not equal to its table")
    return exported


async def _drop(connection: "asyncpg.Connection[Any]", business_date: date) -> None:
    """Drops the partitions as soon as no transaction reads them; the savepoint gives the locks back in between.

    Raises:
        HeldBackError: there was always one.
    """
    await connection.execute(f"SET LOCAL lock_timeout = '{DROP_LOCK_TIMEOUT}'")
    for _ in range(DROP_ATTEMPTS_MAX):
        try:
            async with connection.transaction():
                await connection.execute(STATEMENTS["drop_partitions"], business_date)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(random.uniform(DROP_PAUSE_MAX_S / 4, DROP_PAUSE_MAX_S))
        else:
            return
    raise HeldBackError("long transactions read it")
