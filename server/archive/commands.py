"""``onecard archive``: what the housekeeper does by itself, and what only people do, from the command line.

Works on the database and the directory of files, not through a running core; one process at a time.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import click

from server.archive import archiving, restoring
from server.archive.archiving import ArchivedDate, ArchivePolicy
from server.archive.errors import ArchiveError
from server.archive.record import RecordedFile, recorded_files, sole_connection
from server.archive.tables import TABLES, ColumnKind, Sums
from server.database import pool
from server.database_options import BusinessDate
from server.errors import ConfigurationError
from server.run_files import read_run_file
from server.settings import Settings

EXIT_FAILED = 1
FindDatabase = Callable[[Path, str | None], str]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Move old business dates into files, verify the files, and bring dates back."""


def _place_options(command: Any) -> Any:
    """Database and directory: those of the instance that runs on the data directory, unless told otherwise."""
    for option in (
        click.option("--archive-dir", type=click.Path(path_type=Path), envvar="ONECARD_ARCHIVE_DIR"),
        click.option("--dsn", envvar="ONECARD_DSN", help="PostgreSQL address (postgresql://...)."),
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path),
            default=Path("data"),
            show_default=True,
            envvar="ONECARD_DATA_DIR",
            help="Data directory of a running embedded instance.",
        ),
    ):
        command = option(command)
    return command


def _policy_options(command: Any) -> Any:
    """Settings of 'onecard serve', for a database given by --dsn; give the same values."""
    for name, kind in (
        ("operations_days", int),
        ("request_log_hours_min", int),
        ("time_zone", str),
        ("business_day_cutoff", str),
    ):
        command = click.option(
            f"--{name.replace('_', '-')}", name, type=kind, envvar=f"ONECARD_{name.upper()}"
        )(command)
    return command


def _settings(data_dir: Path, archive_dir: Path | None, **flags: Any) -> Settings:
    """What was given, else what the instance on the data directory runs with, else the defaults.

    Raises:
        ConfigurationError: a value is out of bounds.
    """
    try:
        running = read_run_file(data_dir.absolute()).get("archive", {})
    except ConfigurationError:
        running = {}
    given = {name: value for name, value in flags.items() if value is not None}
    values = {**running, **given, **({"archive_dir": archive_dir} if archive_dir else {})}
    if "archive_dir" in values:
        values["archive_dir"] = Path(values["archive_dir"]).absolute()
    return Settings(data_dir=data_dir.absolute(), **values)


def _told(sums: dict[str, Sums]) -> str:
    return ", ".join(f"{s.row_count:,} {name}" for name, s in sums.items())


@main.command()
@click.option("--date", "business_date", type=BusinessDate(), help="This date, whether it is due or not.")
@click.option("--dates-max", type=click.IntRange(min=1), help="Dates at most; default: all that are due.")
@_policy_options
@_place_options
@click.pass_obj
def run(
    find_database: FindDatabase,
    /,
    *,
    business_date: date | None,
    dates_max: int | None,
    data_dir: Path,
    dsn: str | None,
    archive_dir: Path | None,
    **flags: Any,
) -> None:
    """Archive the business dates that are due, the oldest first; exit code 1 when one had to stay."""
    policy = archiving.policy_of(_settings(data_dir, archive_dir, **flags))
    address = find_database(data_dir, dsn)
    if business_date is not None:
        done = asyncio.run(_archive_one(address, business_date, policy))
        click.echo(f"{done.business_date} archived: {_told(done.sums)}")
        return
    if not asyncio.run(_archive_due(address, policy, dates_max)):
        sys.exit(EXIT_FAILED)


async def _archive_one(dsn: str, business_date: date, policy: ArchivePolicy) -> ArchivedDate:
    async with sole_connection(dsn) as connection:
        return await archiving.archive_date(connection, business_date, policy)


async def _archive_due(dsn: str, policy: ArchivePolicy, dates_max: int | None) -> bool:
    archived = stayed = 0
    async for result in archiving.archive_due(dsn, policy, dates_max=dates_max):
        match result:
            case ArchivedDate():
                archived += 1
                click.echo(f"{result.business_date} archived: {_told(result.sums)}")
            case business_date, error:
                stayed += 1
                click.echo(f"{business_date} stays: {error.message} ({error.reason})")
    click.echo(f"{archived} archived, {stayed} stay")
    return not stayed


async def _recorded(dsn: str, **which: Any) -> list[RecordedFile]:
    connection = await pool.connect(dsn, application_name="onecard archive")
    try:
        return await recorded_files(connection, **which)
    finally:
        await connection.close()


@main.command("list")
@_place_options
@click.pass_obj
def list_archives(
    find_database: FindDatabase, data_dir: Path, dsn: str | None, archive_dir: Path | None
) -> None:
    """List every file on record, and whether it is in the directory."""
    from rich.console import Console
    from rich.table import Table

    directory = _settings(data_dir, archive_dir).archives_dir
    table = Table("date", "file", "rows", "amount 分", "SHA-256", "archived", "state", "on disk")
    for file in asyncio.run(_recorded(find_database(data_dir, dsn))):
        table.add_row(
            str(file.business_date),
            file.file_name,
            f"{file.sums.row_count:,}",
            f"{file.sums.amount_minor:,}",
            file.sums.digest.hex()[:12],
            f"{file.archived_at:%Y-%m-%d %H:%M}Z",
            "restored" if file.is_restored else "archived",
            "yes" if (directory / file.file_name).exists() else "MISSING",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@main.command()
@click.option("--date", "business_date", type=BusinessDate(), help="The files of this date only.")
@_place_options
@click.pass_obj
def verify(
    find_database: FindDatabase,
    business_date: date | None,
    data_dir: Path,
    dsn: str | None,
    archive_dir: Path | None,
) -> None:
    """Read files row by row and compare them with the record; exit code 1 when one differs."""
    from server.archive.parquet_file import read_sums

    directory = _settings(data_dir, archive_dir).archives_dir
    wrong = 0
    files = asyncio.run(_recorded(find_database(data_dir, dsn), business_date=business_date))
    for file in files:
        try:
            restoring.require_recorded(read_sums(directory / file.file_name), file)
        except ArchiveError as error:
            wrong += 1
            click.echo(f"{file.file_name}: {error.message} ({error.reason})")
        else:
            click.echo(f"{file.file_name}: as recorded, {file.sums.row_count:,} rows")
    click.echo(f"{len(files) - wrong} as recorded, {wrong} wrong")
    if wrong:
        sys.exit(EXIT_FAILED)


@main.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--date", "business_date", type=BusinessDate(), help="A date, from the files in the directory.")
@_place_options
@click.pass_obj
def restore(
    find_database: FindDatabase,
    file: Path | None,
    business_date: date | None,
    data_dir: Path,
    dsn: str | None,
    archive_dir: Path | None,
) -> None:
    """Bring a business date back, by the name of one of its files or by --date; both tables come together."""
    if (file is None) == (business_date is None):
        raise ConfigurationError("give a file or --date")
    address = find_database(data_dir, dsn)
    if file is not None:
        done = asyncio.run(restoring.restore_file(address, path=file.absolute()))
    else:
        assert business_date is not None, "one of the two was given"
        directory = _settings(data_dir, archive_dir).archives_dir
        done = asyncio.run(restoring.restore_date(address, directory=directory, business_date=business_date))
    sums = {table.name: f.sums for table in TABLES for f in done if f.table_name == table.name}
    click.echo(f"{done[0].business_date} is online again: {_told(sums)}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--request-id", help="Also the row of this request, without its answer; operations only.")
def show(file: Path, request_id: str | None) -> None:
    """Show what a file says of itself, without a database."""
    from server.archive.parquet_file import ArchiveReader

    reader = ArchiveReader(file)
    facts = reader.facts
    for name, value in (
        ("table", facts.table.name),
        ("business date", facts.business_date),
        ("schema version", facts.schema_version),
        ("rows", f"{facts.sums.row_count:,} in {facts.row_groups:,} row groups"),
        ("amount", f"{facts.sums.amount_minor:,} 分"),
        ("SHA-256", facts.sums.digest.hex()),
    ):
        click.echo(f"{name:15}{value}")
    if request_id is None:
        return
    names = list(facts.table.columns)
    if "request_id" not in names:
        raise ConfigurationError("only operations have request ids")
    at = names.index("request_id")
    for rows in reader.groups():
        for row in rows:
            if row[at] == request_id.lower():
                shown = dict(zip(names, row, strict=True))
                kept = {n: v for n, v in shown.items() if facts.table.columns[n] is not ColumnKind.BYTES}
                click.echo(json.dumps(kept, ensure_ascii=False, indent=2))
                return
    raise ArchiveError("ARCHIVE_UNKNOWN", "no such request in this file")
