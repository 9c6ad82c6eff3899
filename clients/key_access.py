"""How a command reaches the core: where it is, which operator asks, and what becomes of a refusal.

Where an instance on a data directory listens is told by whoever runs the commands, as the context's object: a function
from the directory to host:port.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import click
from onecard.v1 import cryptography_pb2
from rich.console import Console
from rich.table import Table

from clients.channel import ClientCredentials, OneCardChannel
from clients.errors import OneCardCallError
from clients.key_custodian import KeyCustodian, key_reference

VERSION_MAX = 255
DEADLINE_S = 30.0
PIPE_WIDTH = 250
EXIT_WRONG_USE = 2
EXIT_REFUSED = 1


class WrongUseError(click.ClickException):
    """A mistake in how a command was called, as one line."""

    exit_code = EXIT_WRONG_USE

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"onecard: {self.message}", file=file, err=file is None)


class RefusedError(WrongUseError):
    """The core refuses, as one line with its reason."""

    exit_code = EXIT_REFUSED

    def __init__(self, error: OneCardCallError) -> None:
        super().__init__(f"{error.message or 'no answer'} ({error.reason or error.code.name})")


class _KeyName(click.ParamType[cryptography_pb2.KeyReference]):
    """NAME for the active version, or NAME/VERSION."""

    name = "NAME[/VERSION]"

    def __init__(self, *, version_required: bool) -> None:
        self._version_required = version_required

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> cryptography_pb2.KeyReference:
        name, _, version = str(value).partition("/")
        if not version and not self._version_required:
            return key_reference(name)
        if not version.isdecimal() or not 1 <= int(version) <= VERSION_MAX:
            self.fail(f"say the version: {name}/1, for example", param, ctx)
        return key_reference(name, int(version))


class _Hex(click.ParamType[bytes]):
    """Bytes as hexadecimal digits."""

    name = "HEX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        try:
            return bytes.fromhex(value)
        except ValueError:
            self.fail("must be hexadecimal digits", param, ctx)


KEY, KEY_VERSION, HEX = _KeyName(version_required=False), _KeyName(version_required=True), _Hex()


class Access(NamedTuple):
    """Where the core is, and who asks."""

    address: str
    credentials: ClientCredentials


Command: TypeAlias = Callable[..., Coroutine[Any, Any, None]]


def as_operator(command: Command) -> Callable[..., None]:
    """``as_operator_with`` a custodian of keys."""
    return as_operator_with(KeyCustodian)(command)


def as_operator_with(client_of: Callable[[OneCardChannel], Any]) -> Callable[[Command], Callable[..., None]]:
    """Adds the options that say where the core is and who asks, and runs the command as that operator, whose client
    is its first argument."""
    return functools.partial(_as_operator, client_of)


def _as_operator(client_of: Callable[[OneCardChannel], Any], command: Command) -> Callable[..., None]:
    @functools.wraps(command)
    def run(
        participant: str,
        data_dir: Path,
        address: str | None,
        certificate: Path | None,
        key_file: Path | None,
        authority: Path | None,
        **options: Any,
    ) -> None:
        access = _access(participant, data_dir, address, certificate, key_file, authority)

        async def work() -> None:
            try:
                channel = OneCardChannel(
                    access.address, access.credentials, channels=1, deadline_s=DEADLINE_S
                )
            except OSError as error:
                raise WrongUseError(f"cannot read {error.filename}: {error.strerror}") from None
            async with channel:
                try:
                    await command(client_of(channel), **options)
                except OneCardCallError as error:
                    raise RefusedError(error) from None

        asyncio.run(work())

    path = click.Path(path_type=Path)
    for option in (
        click.option("--authority", type=path, help="Authority of the server's certificate (PEM)."),
        click.option("--key", "key_file", type=path, help="Private key of the operator (PEM)."),
        click.option("--certificate", type=path, help="Certificate of the operator (PEM)."),
        click.option("--address", help="host:port of the core; default: the instance on DATA_DIR."),
        click.option(
            "--data-dir",
            type=path,
            default=Path("data"),
            show_default=True,
            envvar="ONECARD_DATA_DIR",
            help="Data directory of a running embedded instance.",
        ),
        click.option(
            "--as",
            "participant",
            required=True,
            envvar="ONECARD_OPERATOR",
            help="The operator who asks; names its development certificate in DATA_DIR.",
        ),
    ):
        run = option(run)
    return run


def _access(
    participant: str,
    data_dir: Path,
    address: str | None,
    certificate: Path | None,
    key_file: Path | None,
    authority: Path | None,
) -> Access:
    """
    Raises:
        WrongUseError: no address, or some of the files are missing.
    """
    if certificate and key_file and authority:
        credentials = ClientCredentials(certificate=certificate, key=key_file, authority=authority)
    elif certificate or key_file or authority:
        raise WrongUseError("--certificate, --key and --authority go together: give all three or none")
    else:
        credentials = ClientCredentials.of_participant(data_dir.absolute(), participant)
    if address is None:
        address_of: Callable[[Path], str] | None = click.get_current_context().obj
        if address_of is None:
            raise WrongUseError(
                "say --address: where an instance on a data directory listens is not known here"
            )
        address = address_of(data_dir.absolute())
    return Access(address, credentials)


def print_table(table: Table) -> None:
    """Shows a table as it is: brackets in a text are no markup, and a pipe gets whole lines."""
    is_terminal = Console().is_terminal
    Console(markup=False, emoji=False, highlight=False, width=None if is_terminal else PIPE_WIDTH).print(
        table
    )
