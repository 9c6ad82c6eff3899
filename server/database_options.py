"""Where a command of the operator finds the database: the instance that runs on a data directory, or a DSN."""

import re
from datetime import date
from pathlib import Path
from typing import Any

import click

from server.errors import ConfigurationError
from server.run_files import read_run_file
from server.settings import socket_dsn


class BusinessDate(click.ParamType[date]):
    """A business date as commands take it: YYYYMMDD."""

    name = "YYYYMMDD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        try:
            if not re.fullmatch(r"[0-9]{8}", value, re.ASCII):
                raise ValueError
            return date.fromisoformat(value)
        except ValueError:
            self.fail("a business date is written YYYYMMDD", param, ctx)


def database_options(command: Any) -> Any:
    """Where a tool finds the database: the instance that runs on DATA_DIR, or a DSN."""
    command = click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        default=Path("data"),
        show_default=True,
        envvar="ONECARD_DATA_DIR",
        help="Data directory of a running embedded instance.",
    )(command)
    return click.option("--dsn", envvar="ONECARD_DSN", help="PostgreSQL address instead (postgresql://...).")(
        command
    )


def database_dsn(data_dir: Path, dsn: str | None) -> str:
    """The DSN given, or the socket of the instance that runs on the data directory.

    Raises:
        ConfigurationError: no instance runs there, or it uses a database of its own.
    """
    if dsn:
        return dsn
    facts = read_run_file(data_dir.absolute())
    if not facts["embedded"]:
        raise ConfigurationError("the running onecard uses an external database: give its --dsn")
    return socket_dsn(Path(facts["socket_dir"]))
