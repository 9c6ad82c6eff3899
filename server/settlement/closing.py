"""Makes the files of closed days, once for each participant, and again byte for byte when they were lost.

Files are written beside their place and moved there whole, then recorded. Whoever is killed in between makes the same
files again. Must never put files in place that differ from what is recorded.
"""

import asyncio
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from server.database.pool import acquired, connect
from server.database.statements import load
from server.engine.business_calendar import BusinessCalendar
from server.errors import StateConflictError
from server.settlement.closing_day import close_day, due_days
from server.settlement.closing_files import ClosedDay, Total, manifest_text, totals_of, write_parquet
from server.settlement.closing_store import ClosingFile, closing_folder, digest_of
from server.settlement.positions import accounts_of, indexed, read_position

log = logging.getLogger(__name__)

STATEMENTS = load("server.settlement")
# A copy of a whole day is one statement.
COPY_TIMEOUT_S = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A closing that was made or found whole."""

    business_date: date
    participant_id: str
    folder: Path
    operation_count: int


def closing_job(
    calendar: BusinessCalendar, settlement_dir: Path, dsn: str
) -> Callable[["asyncpg.Pool[Any]"], Awaitable[None]]:
    """The housekeeper's job: closes what is due, and makes what is missing, one participant at a time."""

    async def run(pool: "asyncpg.Pool[Any]") -> None:
        async with acquired(pool) as connection:
            for business_date in await due_days(connection, calendar):
                await close_day(connection, business_date)
            unmade = await connection.fetch(STATEMENTS["unmade_days"])
        if not unmade:
            return
        failed = 0
        # A connection without the short timeouts of the pool's.
        connection = await connect(dsn, application_name="onecard closing", command_timeout=COPY_TIMEOUT_S)
        try:
            for (business_date,) in unmade:
                try:
                    await make_missing(connection, settlement_dir, business_date)
                except StateConflictError as error:
                    failed += 1
                    log.error(error.message)
        finally:
            await connection.close()
        if failed:
            raise StateConflictError("CLOSINGS_MISSING", f"closings of {failed} business dates are missing")

    return run


async def make_missing(
    connection: "asyncpg.Connection[Any]", settlement_dir: Path, business_date: date
) -> list[Made]:
    """Makes the files that participants do not have yet of a closed date; one that fails stops no other.

    Raises:
        StateConflictError: some could not be made; why is in the log.
    """
    made, missing = [], []
    for row in await connection.fetch(STATEMENTS["unmade_closings"], business_date):
        try:
            one = await make_closing(
                connection,
                settlement_dir,
                business_date=business_date,
                participant_id=row["participant_id"],
                settlement_account_id=row["settlement_account_id"],
            )
        except Exception as error:  # whatever is wrong with one participant's rows or files
            facts = {"business_date": str(business_date), "participant": row["participant_id"]}
            log.error("closing was not made", extra=facts, exc_info=error)
            missing.append(row["participant_id"])
        else:
            made.append(one)
    if missing:
        raise StateConflictError(
            "CLOSINGS_MISSING", f"closings of {business_date:%Y%m%d} are missing: {', '.join(missing)}"
        )
    await connection.execute(STATEMENTS["record_made_day"], business_date)
    return made


async def restore(
    connection: "asyncpg.Connection[Any]", settlement_dir: Path, business_date: date
) -> list[Made]:
    """Makes the recorded files of a date again where this host does not have them whole.

    Raises:
        StateConflictError: they would differ from what is recorded, or the operations are archived.
    """
    if not await is_online(connection, business_date):
        return await _found_whole(connection, settlement_dir, business_date)
    return [
        await make_closing(
            connection,
            settlement_dir,
            business_date=business_date,
            participant_id=row["participant_id"],
            settlement_account_id=row["settlement_account_id"],
            recorded=row["manifest"],
        )
        for row in await connection.fetch(STATEMENTS["made_closings"], business_date)
    ]


async def is_online(connection: "asyncpg.Connection[Any]", business_date: date) -> bool:
    """Whether the operations of a date are in the database."""
    return any(row[0] == business_date for row in await connection.fetch(STATEMENTS["online_dates"]))


async def _found_whole(
    connection: "asyncpg.Connection[Any]", settlement_dir: Path, business_date: date
) -> list[Made]:
    """The closings of an archived date, which nobody can make again.

    Raises:
        StateConflictError: a file is not here or was changed.
    """
    found = []
    for row in await connection.fetch(STATEMENTS["made_closings"], business_date):
        folder = closing_folder(settlement_dir, row["participant_id"], business_date)
        manifest = json.loads(row["manifest"])
        digests = {file: facts["sha256"] for file, facts in manifest["files"].items()}
        digests[ClosingFile.MANIFEST] = hashlib.sha256(row["manifest"].encode()).hexdigest()
        for file, digest in digests.items():
            if await asyncio.to_thread(digest_of, folder / file) != digest:
                raise StateConflictError(
                    "CLOSING_ARCHIVED",
                    f"{folder / file} is missing, and its operations are archived: restore the archive first",
                )
        found.append(
            Made(
                business_date=business_date,
                participant_id=row["participant_id"],
                folder=folder,
                operation_count=manifest["operation_count"],
            )
        )
    return found


async def make_closing(
    connection: "asyncpg.Connection[Any]",
    settlement_dir: Path,
    *,
    business_date: date,
    participant_id: str,
    settlement_account_id: int,
    recorded: str | None = None,
) -> Made:
    """Makes, places and records the files of one participant; the date is closed.

    Args:
        recorded: the manifest that is recorded, if there is one.
    Raises:
        StateConflictError: the files differ from what is recorded.
    """
    folder = closing_folder(settlement_dir, participant_id, business_date)
    scratch = folder.with_name(f".{participant_id}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    for place in (settlement_dir, folder.parent, scratch):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in ClosingFile:
        (scratch / file).touch(mode=0o600)
    try:
        for file, is_exceptions in ((ClosingFile.CSV, False), (ClosingFile.EXCEPTIONS, True)):
            arguments = business_date, participant_id, settlement_account_id, is_exceptions
            await _copy(connection, scratch / file, *arguments)
        await asyncio.to_thread(write_parquet, scratch / ClosingFile.CSV, scratch / ClosingFile.PARQUET)
        day = await _closed_day(connection, business_date, participant_id, settlement_account_id)
        if await asyncio.to_thread(totals_of, scratch / ClosingFile.CSV) != list(day.totals):
            raise StateConflictError(
                "CLOSING_DIFFERS", "the lines of the file do not add up to the operations"
            )
        manifest = await asyncio.to_thread(manifest_text, day, scratch)
        if recorded is not None and manifest != recorded:
            raise StateConflictError("CLOSING_DIFFERS", "the files differ from those that are recorded")
        (scratch / ClosingFile.MANIFEST).write_text(manifest, encoding="utf-8")
        await asyncio.to_thread(_place, scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    operation_count = sum(total.operation_count for total in day.totals)
    await connection.execute(
        STATEMENTS["record_closing"], business_date, participant_id, operation_count, manifest
    )
    return Made(
        business_date=business_date,
        participant_id=participant_id,
        folder=folder,
        operation_count=operation_count,
    )


async def read_totals(
    connection: "asyncpg.Connection[Any]", business_date: date, participant_id: str
) -> list[Total]:
    """Totals of a participant's operations as the database has them, by ascending kind and response code."""
    rows = await connection.fetch(STATEMENTS["closing_totals"], business_date, participant_id)
    return [
        Total(
            kind=row["operation_kind"],
            response_code=row["response_code"],
            operation_count=row["operation_count"],
            amount_minor=row["amount_minor"],
            approved_minor=row["approved_minor"],
        )
        for row in rows
    ]


async def _copy(connection: "asyncpg.Connection[Any]", path: Path, *arguments: Any) -> None:
    async with indexed(connection):
        await connection.copy_from_query(
            STATEMENTS["closing_lines"],
            *arguments,
            output=path,
            format="csv",
            header=True,
            timeout=COPY_TIMEOUT_S,
        )


async def _closed_day(
    connection: "asyncpg.Connection[Any]",
    business_date: date,
    participant_id: str,
    settlement_account_id: int,
) -> ClosedDay:
    day = await connection.fetchrow(STATEMENTS["find_day"], business_date)
    assert day is not None, "files are made of closed days only"
    accounts = accounts_of(settlement_account_id)
    reading = await read_position(connection, list(accounts), business_date)
    return ClosedDay(
        business_date=business_date,
        participant_id=participant_id,
        closed_at=day["closed_at"],
        first_sequence=day["first_sequence"],
        last_sequence=day["last_sequence"],
        totals=await read_totals(connection, business_date, participant_id),
        positions={accounts[position.account_id]: position for position in reading.positions},
    )


def _place(scratch: Path, folder: Path) -> None:
    """Moves whole files to their place; files that are there and the same stay."""
    if all(digest_of(folder / file) == digest_of(scratch / file) for file in ClosingFile):
        return
    for file in ClosingFile:
        with (scratch / file).open("rb") as content:
            os.fsync(content.fileno())
    if folder.exists():
        aside = scratch.with_name(f"{scratch.name}.old")
        folder.rename(aside)
        scratch.rename(folder)
        shutil.rmtree(aside)
    else:
        scratch.rename(folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
