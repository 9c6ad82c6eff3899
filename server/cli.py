"""The command line: ``onecard serve`` and the tools beside it.

A mistake in the configuration is one line on stderr and exit code 2, never a traceback. What a command needs
is imported inside it: ``serve`` must stay free of grpc, and no command waits for the imports of another.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from server.database_options import database_dsn, database_options
from server.errors import ConfigurationError, OneCardError
from server.settings_flags import click_options, settings_from_flags

EXIT_CONFIGURATION = 2
EXIT_FAILED = 1
PARTICIPANT_KINDS = ("bank", "agency", "terminal_operator", "operator")
GRANT_KINDS = ("rpc_class", "region", "catalogue_item", "key")

Result = TypeVar("Result")


class _OneLineErrors(click.Group):
    """Shows our own errors as one line; everything else keeps its traceback, because it is a bug."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"onecard: {error.message}", err=True)
            ctx.exit(EXIT_CONFIGURATION)
        except OneCardError as error:
            click.echo(f"onecard: {error.message} ({error.reason})", err=True)
            ctx.exit(EXIT_FAILED)


@click.group(
    cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="onecard")
def main() -> None:
    """The core of a province's social-security card."""


@main.command()
@click_options
def serve(**flags: Any) -> None:
    """Run the core in the foreground until SIGTERM or Ctrl-C.

    Without --dsn it runs its own PostgreSQL and makes development certificates and keys in DATA_DIR.
    """
    from server import supervisor
    from server.log_lines import set_up_logging

    settings = settings_from_flags(flags)
    set_up_logging(settings.log_level)
    supervisor.serve(settings)


@main.group()
def participants() -> None:
    """Who may call: banks, agencies, terminal operators, and what each is granted."""


@participants.command("add")
@click.argument("participant_id")
@click.option("--name", required=True, help="Name shown to people.")
@click.option("--kind", type=click.Choice(PARTICIPANT_KINDS), required=True)
@database_options
def add_participant(participant_id: str, name: str, kind: str, data_dir: Path, dsn: str | None) -> None:
    """Add a participant; on the embedded default also issue its development certificate."""
    from server.development_ca import check_participant_id, issue_participant_certificate

    check_participant_id(participant_id)
    row = _statement(data_dir, dsn, "add_participant", participant_id, name, kind)[0]
    click.echo(f"{participant_id} {'added' if row['is_new'] else 'updated'}")
    if dsn is None:
        files = issue_participant_certificate(data_dir.absolute(), participant_id)
        click.echo(f"certificate {files.certificate}\nkey         {files.key}\nauthority   {files.authority}")


@participants.command("grant")
@click.argument("participant_id")
@click.argument("grant_kind", type=click.Choice(GRANT_KINDS))
@click.argument("grant_values", nargs=-1, required=True)
@database_options
def grant(
    participant_id: str, grant_kind: str, grant_values: tuple[str, ...], data_dir: Path, dsn: str | None
) -> None:
    """Grant RPC classes, regions, catalogue items or keys; * grants all of a kind."""
    from server.edge.admission import RPC_CLASSES

    if grant_kind == "rpc_class" and (unknown := set(grant_values) - RPC_CLASSES - {"*"}):
        known = ", ".join(sorted(RPC_CLASSES))
        raise ConfigurationError(f"no RPC class {', '.join(sorted(unknown))}; there are {known}")
    rows = _statement(data_dir, dsn, "grant_participant", participant_id, grant_kind, list(set(grant_values)))
    click.echo(
        f"{participant_id} {grant_kind}: {len(rows)} granted, {len(set(grant_values)) - len(rows)} had"
    )


@participants.command("revoke")
@click.argument("participant_id")
@click.argument("grant_kind", type=click.Choice(GRANT_KINDS), required=False)
@click.argument("grant_values", nargs=-1)
@database_options
def revoke(
    participant_id: str,
    grant_kind: str | None,
    grant_values: tuple[str, ...],
    data_dir: Path,
    dsn: str | None,
) -> None:
    """Take grants away; without a kind, suspend the participant as a whole."""
    if grant_kind is None:
        if not _statement(data_dir, dsn, "suspend_participant", participant_id):
            raise ConfigurationError(f"there is no participant {participant_id}")
        click.echo(f"{participant_id} suspended")
        return
    if not grant_values:
        raise ConfigurationError(f"which {grant_kind} is to be taken away?")
    rows = _statement(
        data_dir, dsn, "revoke_participant_grants", participant_id, grant_kind, list(set(grant_values))
    )
    click.echo(f"{participant_id} {grant_kind}: {len(rows)} taken away")


@participants.command("list")
@database_options
def list_participants(data_dir: Path, dsn: str | None) -> None:
    """List participants and their grants."""
    from rich.console import Console
    from rich.table import Table

    table = Table("participant", "name", "kind", "state", "grants")
    for row in _statement(data_dir, dsn, "list_participants"):
        table.add_row(*list(row.values())[:4], "\n".join(row["grants"]) or "-")
    Console().print(table)


@main.command()
@database_options
def reconcile(data_dir: Path, dsn: str | None) -> None:
    """Prove that balances and postings agree; exit code 1 when they do not."""
    import importlib

    run: Callable[[str], Awaitable[bool]] = importlib.import_module("server.settlement.reconcile").run
    address = database_dsn(data_dir, dsn)
    if not asyncio.run(_awaited(run(address))):
        sys.exit(EXIT_FAILED)


@main.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Run the benchmarks; 'onecard bench --help' lists the suites."""
    import importlib

    importlib.import_module("benchmarks.cli").main(list(arguments))


class _LazyCommands(_OneLineErrors):
    """Commands of another module, loaded when they are named; those of the group itself come first."""

    def __init__(self, *arguments: Any, module: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._module = module

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._loaded().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._loaded().get_command(ctx, cmd_name)

    def _loaded(self) -> click.Group:
        import importlib

        group: click.Group = importlib.import_module(self._module).main
        return group


def _lazy_group(module: str) -> Callable[[Callable[..., Any]], click.Group]:
    return main.group(
        cls=_LazyCommands, module=module, context_settings={"help_option_names": ["-h", "--help"]}
    )


@_lazy_group("server.settlement.commands")
def settlement() -> None:
    """Close days, check their files, list what people must look at."""


@_lazy_group("clients.key_commands")
@click.pass_context
def keys(ctx: click.Context) -> None:
    """Make, bring in, use and destroy keys; every change is proposed by one operator and approved by another."""
    ctx.obj = _running_address


@_lazy_group("server.archive.commands")
@click.pass_context
def archive(ctx: click.Context) -> None:
    """Move old business dates into files, verify the files, and bring dates back."""
    ctx.obj = database_dsn


def _running_address(data_dir: Path) -> str:
    """Where the instance on a data directory listens.

    Raises:
        ConfigurationError: none runs there.
    """
    from server.run_files import read_run_file

    return f"localhost:{read_run_file(data_dir)['port']}"


@_lazy_group("clients.rule_commands")
@click.pass_context
def rules(ctx: click.Context) -> None:
    """Read and change the rules that money decisions follow; one operator proposes, another approves."""
    ctx.obj = _running_address


@keys.command()
@click_options
def initialise(**flags: Any) -> None:
    """Make the key store of an instance that brings its own database, in files or a token, with a first set of keys.

    Takes the settings of 'onecard serve'; an embedded instance makes its own at the first start.
    """
    from crypto.key_store.wrapped_file import KEYS_FILE
    from server.key_stores import ensure_development_store

    settings = settings_from_flags(flags)
    if (settings.keys_dir / KEYS_FILE).exists():
        raise ConfigurationError(f"key store: {settings.keys_dir} already holds one")
    ensure_development_store(settings)
    click.echo(f"key store made in {settings.keys_dir}")


def _statement(data_dir: Path, dsn: str | None, name: str, *arguments: Any) -> list[Any]:
    """Runs one statement of ``server/edge/sql``.

    Raises:
        ConfigurationError: no database, an unknown participant, or a value the schema refuses.
    """
    import asyncpg

    from server.database import pool
    from server.database.statements import load

    async def run() -> list[Any]:
        connection = await pool.connect(database_dsn(data_dir, dsn), application_name="onecard participants")
        try:
            return list(await connection.fetch(load("server.edge")[name], *arguments))
        except asyncpg.ForeignKeyViolationError:
            raise ConfigurationError(f"there is no participant {arguments[0]}") from None
        except asyncpg.UndefinedTableError:
            raise ConfigurationError(
                "the database has no onecard schema: start 'onecard serve' on it"
            ) from None
        except asyncpg.PostgresError as error:
            constraint = getattr(error, "constraint_name", None) or type(error).__name__
            raise ConfigurationError(f"the database refuses it: {constraint} ({error.sqlstate})") from None
        finally:
            await connection.close()

    return asyncio.run(run())


async def _awaited(work: Awaitable[Result]) -> Result:
    return await work


if __name__ == "__main__":
    main()
