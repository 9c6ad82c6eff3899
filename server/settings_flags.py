"""Settings on the command line and in the environment: a flag and a variable for each, made from its field."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from server.settings import Settings


class _BoundedInteger(click.IntRange):
    """Shows the bounds in ``--help``; Settings refuses, in one line that is the same for every source.

    Numbers of PKCS#11 vendors are written in hexadecimal, 0x80000101.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and re.fullmatch(r"0x[0-9A-Fa-f]+", value):
            return int(value, 16)
        return click.INT.convert(value, param, ctx)


def click_options(command: Any) -> Any:
    """Decorates a command with one flag and one environment variable for every setting."""
    for field in reversed(dataclasses.fields(Settings)):
        if field.metadata["is_flag"]:
            command = _click_option(field)(command)
    return command


def _click_option(field: "dataclasses.Field[Any]") -> Any:
    facts = field.metadata
    hint = get_type_hints(Settings)[field.name]
    kind: Any = str
    if hint is int:
        kind = _BoundedInteger(facts["minimum"], facts["maximum"])
    elif facts["choices"]:
        kind = click.Choice(facts["choices"])
    elif Path in (hint, *get_args(hint)):
        kind = click.Path(path_type=Path)
    default = field.default if field.default is not dataclasses.MISSING else None
    return click.option(
        f"--{field.name.replace('_', '-')}",
        field.name,
        type=kind,
        default=default,
        envvar=f"ONECARD_{field.name.upper()}",
        show_envvar=True,
        show_default=default is not None,
        help=facts["help"],
    )


def settings_from_flags(flags: dict[str, Any]) -> Settings:
    """Settings from click's parameters; what was not given takes its default.

    Raises:
        ConfigurationError: a value is out of bounds or values do not go together.
    """
    settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    # Children may run elsewhere one day; a relative directory must mean the same to all of them.
    return dataclasses.replace(
        settings,
        data_dir=settings.data_dir.absolute(),
        archive_dir=settings.archive_dir.absolute() if settings.archive_dir else None,
    )
