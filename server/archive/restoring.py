"""Brings an archived business date back: checked file by file, loaded, compared and attached in one transaction."""

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from server.archive.errors import ArchiveError, as_archive_errors
from server.archive.record import STATEMENTS, RecordedFile, recorded_files, sole_connection
from server.archive.tables import TABLES, ArchivedTable, Sums, Tally, database_rows, partition_name


async def restore_date(dsn: str, *, directory: Path, business_date: date) -> list[RecordedFile]:
    """Restores the latest generation of a date from the files in ``directory``; gives their records.

    Raises:
        ArchiveError: there is no record, the date is online, or a file is not what was recorded.
    """
    async with sole_connection(dsn) as connection:
        with as_archive_errors():
            return await _restore(connection, business_date, directory)


async def restore_file(dsn: str, *, path: Path) -> list[RecordedFile]:
    """Restores the date that a file belongs to, with the other table's file from the same directory.

    Raises:
        ArchiveError: there is no record, the date is online, or a file is not what was recorded.
    """
    async with sole_connection(dsn) as connection:
        found = await recorded_files(connection, file_name=path.name)
        if not found:
            raise ArchiveError("ARCHIVE_UNKNOWN", f"this database has no record of {path.name}")
        with as_archive_errors():
            return await _restore(
                connection, found[0].business_date, path.parent, generation=found[0].generation
            )


async def _restore(
    connection: "asyncpg.Connection[Any]",
    business_date: date,
    directory: Path,
    *,
    generation: int | None = None,
) -> list[RecordedFile]:
    files = await recorded_files(connection, business_date=business_date)
    if not files:
        raise ArchiveError("ARCHIVE_UNKNOWN", f"{business_date} was never archived")
    latest = files[-1].generation
    if generation not in (None, latest):
        raise ArchiveError(
            "ARCHIVE_SUPERSEDED",
            f"{business_date} was restored and archived again: generation {latest} counts",
        )
    if files[-1].is_restored:
        raise ArchiveError("ARCHIVE_IS_ONLINE", f"{business_date} was restored and is online")
    by_table = {file.table_name: file for file in files if file.generation == latest}
    async with connection.transaction():
        for table in TABLES:
            await _load(connection, table, by_table[table.name], directory / by_table[table.name].file_name)
            await connection.execute(STATEMENTS["attach_partition"], table.name, business_date)
            counted = await connection.fetchrow(STATEMENTS[f"measure_{table.name}"], business_date)
            assert counted is not None, "the statement gives one row"
            sums = by_table[table.name].sums
            if tuple(counted) != (sums.row_count, sums.amount_minor):
                raise ArchiveError(
                    "ARCHIVE_VERIFICATION_FAILED", f"{table.name} did not come out as recorded"
                )
        await connection.execute(STATEMENTS["add_balances"], business_date, -1)
        await connection.execute(STATEMENTS["insert_event"], business_date, latest, "RESTORED")
    return list(by_table.values())


async def _load(
    connection: "asyncpg.Connection[Any]", table: ArchivedTable, recorded: RecordedFile, path: Path
) -> None:
    """Makes the date's table and copies the file into it, adding up on the way."""
    from server.archive.parquet_file import ArchiveReader

    reader = ArchiveReader(path)
    try:
        if (reader.facts.table, reader.facts.business_date) != (table, recorded.business_date):
            raise ArchiveError("ARCHIVE_FILE_WRONG", f"{path} is of another table or date")
        name = partition_name(table, recorded.business_date)
        await connection.execute(STATEMENTS["make_partition"], table.name, recorded.business_date)
        tally = Tally(table)
        for number in range(reader.facts.row_groups):
            rows = await asyncio.to_thread(_group, reader, number, tally)
            await connection.copy_records_to_table(
                name, records=database_rows(table, rows), columns=list(table.columns)
            )
    finally:
        reader.close()
    require_recorded(tally.sums(), recorded)


def _group(reader: Any, number: int, tally: Tally) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = reader.group(number)
    tally.add(rows)
    return rows


def require_recorded(found: Sums, recorded: RecordedFile) -> None:
    """
    Raises:
        ArchiveError: the file's rows are not those that were archived.
    """
    if found != recorded.sums:
        raise ArchiveError(
            "ARCHIVE_VERIFICATION_FAILED",
            f"{recorded.file_name} is not what was archived: rows, sum or digest differ from the record",
        )
