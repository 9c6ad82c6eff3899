"""``onecard settlement``: closes days, checks their files, lists what people must look at."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import click

from server.database.facts import read_calendar
from server.database.pool import connect
from server.database.statements import load
from server.database_options import BusinessDate, database_dsn, database_options
from server.engine.business_calendar import BusinessCalendar
from server.engine.operation import OperationKind
from server.errors import ConfigurationError, StateConflictError
from server.settings import Settings
from server.settlement.closing import COPY_TIMEOUT_S, is_online, make_missing, restore
from server.settlement.closing_day import close_day, due_days
from server.settlement.closing_store import ClosingFile
from server.settlement.closing_verify import closing_folders, verify_closing

STATEMENTS = load("server.settlement")
EXIT_FAILED = 1
EXCEPTIONS_MAX = 10_000
FORCED = 2


def _run(data_dir: Path, dsn: str | None, work: Callable[["asyncpg.Connection[Any]"], Awaitable[Any]]) -> Any:
    """
    Raises:
        ConfigurationError: no database, or one without our schema.
    """

    async def run() -> Any:
        address = database_dsn(data_dir, dsn)
        connection = await connect(
            address, application_name="onecard settlement", command_timeout=COPY_TIMEOUT_S
        )
        try:
            return await work(connection)
        except asyncpg.UndefinedTableError:
            raise ConfigurationError(
                "the database has no onecard schema: start 'onecard serve' on it"
            ) from None
        finally:
            await connection.close()

    return asyncio.run(run())


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Closed days: make their files, check them, list what people must look at."""


@main.command()
@click.option(
    "--date", "business_date", type=BusinessDate(), help="Only this date (YYYYMMDD); else all that are due."
)
@database_options
def close(business_date: date | None, data_dir: Path, dsn: str | None) -> None:
    """Close business dates and make their files; files that were lost are made again, the same.

    The housekeeper does the same by itself.
    """
    settings = Settings(data_dir=data_dir.absolute())

    async def work(connection: "asyncpg.Connection[Any]") -> bool:
        time_zone, cutoff = await read_calendar(connection)
        calendar = BusinessCalendar.of(time_zone=time_zone, cutoff=cutoff)
        dates = await due_days(connection, calendar)
        for due in dates:
            if business_date in (None, due) and not await close_day(connection, due):
                click.echo(f"{due:%Y%m%d} not closed: operations of it still run, or an earlier date is open")
                return False
        made, is_whole = [], True
        days = [row["business_date"] for row in await connection.fetch(STATEMENTS["unmade_days"])]
        for day in days:
            if business_date in (None, day):
                try:
                    made += await make_missing(connection, settings.settlement_dir, day)
                except StateConflictError as error:
                    click.echo(error.message, err=True)
                    is_whole = False
        if not is_whole:
            return False
        if business_date is not None and not made:
            made = await restore(connection, settings.settlement_dir, business_date)
        for one in made:
            archived = "" if await is_online(connection, one.business_date) else " archived"
            click.echo(
                f"{one.business_date:%Y%m%d} {one.participant_id} {one.operation_count} {one.folder}{archived}"
            )
        if business_date is not None and not made:
            click.echo(f"{business_date:%Y%m%d} has no closing: not over yet, or without operations")
            return False
        return True

    if not _run(data_dir, dsn, work):
        sys.exit(EXIT_FAILED)


async def _right(connection: "asyncpg.Connection[Any]", folder: Path) -> str:
    manifest = json.loads((folder / ClosingFile.MANIFEST).read_text(encoding="utf-8"))
    is_here = await is_online(connection, date.fromisoformat(manifest["business_date"]))
    return "right" if is_here else "right; its operations are archived and were not compared"


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@database_options
def verify(folder: Path, data_dir: Path, dsn: str | None) -> None:
    """Check the closings below FOLDER against their manifests and the database; exit code 1 when one is wrong."""

    async def work(connection: "asyncpg.Connection[Any]") -> bool:
        folders = closing_folders(folder)
        if not folders:
            click.echo(f"no closing below {folder}")
        is_right = bool(folders)
        for one in folders:
            wrong = await verify_closing(connection, one)
            click.echo(f"{one} {'; '.join(wrong) if wrong else await _right(connection, one)}")
            is_right &= not wrong
        return is_right

    if not _run(data_dir, dsn, work):
        sys.exit(EXIT_FAILED)


@main.command()
@click.option(
    "--date", "business_date", type=BusinessDate(), help="Business date (YYYYMMDD); default: the last 8 days."
)
@click.option("--participant", help="Only this one's.")
@database_options
def exceptions(business_date: date | None, participant: str | None, data_dir: Path, dsn: str | None) -> None:
    """List reversals whose original never came, and forced posts."""

    async def work(connection: "asyncpg.Connection[Any]") -> list[Any]:
        last = datetime.now(UTC).date() + timedelta(days=1)
        dates = [business_date] if business_date else [last - timedelta(days=n) for n in range(8, -1, -1)]
        rows: list[Any] = []
        for day in dates:
            rows += await connection.fetch(STATEMENTS["list_exceptions"], day, participant, EXCEPTIONS_MAX)
        return rows

    for row in _run(data_dir, dsn, work):
        fields = (
            f"{row['business_date']:%Y%m%d}",
            f"{row['operation_id'] % 10**12:012}",
            row["participant_id"],
            OperationKind(row["operation_kind"]).name,
            "forced post" if row["flags"] & FORCED else "parked reversal",
            f"{row['amount_minor'] or 0} 分",
            f"terminal {row['terminal_id'] or '-'}",
            f"stan {row['stan'] or '-'}",
        )
        click.echo("  ".join(fields))
