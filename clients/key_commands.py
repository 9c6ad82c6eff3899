"""``onecard keys``: the administration of keys from the command line, over gRPC, as one operator.

Whoever proposes a change cannot approve it: the second operator runs ``onecard keys approve`` with a certificate of
their own, and is shown what it is before. Must never echo a component, nor take one as an argument, where a process
list would show it.
"""

import sys
from datetime import UTC, datetime
from typing import Any

import click
from onecard.v1 import common_pb2
from onecard.v1 import keys_pb2 as pb
from rich.table import Table

from clients.key_access import HEX, KEY, KEY_VERSION, WrongUseError, as_operator, print_table
from clients.key_custodian import KeyCustodian, NewKey

CIPHERS = ("SM4", "TDES", "AES", "HMAC_SM3")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Make, bring in, use and destroy keys; every change is proposed by one operator and approved by another."""


def _why(command: Any) -> Any:
    return click.option("--why", required=True, help="Justification, for the audit.")(command)


def _key_options(command: Any) -> Any:
    """What a new key version is to be."""
    for option in (
        click.option("--card-key-option", type=click.Choice(("A", "B")), default=None),
        click.option("--exportable", is_flag=True, help="It may leave as a key block."),
        click.option("--bytes", "key_bytes", type=int, default=0, help="Length of an AES key."),
        click.option("--cipher", type=click.Choice(CIPHERS), required=True),
        click.option("--usage", required=True, help="What it may do, for example IMK_AC."),
    ):
        command = option(command)
    return command


def _new_key(
    name: str, usage: str, cipher: str, key_bytes: int, exportable: bool, card_key_option: str | None
) -> NewKey:
    if key_bytes < 0:
        raise WrongUseError("a key has no negative length")
    return NewKey(
        name=name,
        usage=usage,
        cipher=cipher,
        key_bytes=key_bytes,
        is_exportable=exportable,
        card_key_option=card_key_option or "",
    )


@main.command("list")
@as_operator
async def list_keys(custodian: KeyCustodian) -> None:
    """List all keys, with state and check value."""
    columns = ("key", "version", "usage", "cipher", "kcv", "state", "may leave", "destroyed on")
    table = Table(*columns)
    for key in await custodian.keys():
        table.add_row(*_key_cells(key))
    print_table(table)


@main.command()
@click.option("--waiting", is_flag=True, help="Only those that wait for approval.")
@as_operator
async def changes(custodian: KeyCustodian, waiting: bool) -> None:
    """List changes of keys, the latest first."""
    columns = (
        "change",
        "kind",
        "key",
        "details",
        "state",
        "proposed",
        "by",
        "decided by",
        "components",
        "why",
    )
    table = Table(*columns)
    async for change in custodian.changes(only_proposed=waiting):
        table.add_row(
            change.change_id,
            change.kind,
            _key_text(change.key_name, change.key_version),
            " ".join(change.details),
            _change_state(change),
            _moment(change.proposed_at_unix_ms),
            change.proposed_by,
            change.decided_by,
            f"{change.components_given}/{change.components_needed}" if change.components_needed else "",
            change.justification,
        )
    print_table(table)


@main.command()
@click.argument("key_name", default="")
@as_operator
async def audit(custodian: KeyCustodian, key_name: str) -> None:
    """List every step in the life of keys, or of one key, the latest first."""
    table = Table("entry", "time", "step", "by", "key", "detail", "change")
    async for entry in custodian.audit(key_name):
        table.add_row(
            str(entry.entry_id),
            _moment(entry.recorded_at_unix_ms),
            entry.step,
            entry.participant,
            _key_text(entry.key_name, entry.key_version),
            entry.detail,
            entry.change_id,
        )
    print_table(table)


@main.command()
@click.argument("name")
@_key_options
@_why
@as_operator
async def generate(custodian: KeyCustodian, name: str, why: str, **options: Any) -> None:
    """Propose to make a key version inside the key store."""
    _proposed(await custodian.generate(_new_key(name, **options), why=why))


@main.command("import-components")
@click.argument("name")
@click.option("--components", type=click.IntRange(2, 3), default=2, show_default=True)
@click.option("--kcv", required=True, help="Check value of the whole key.")
@_key_options
@_why
@as_operator
async def import_components(
    custodian: KeyCustodian, name: str, components: int, kcv: str, why: str, **options: Any
) -> None:
    """Propose to bring a key in by components, each of another operator."""
    key = _new_key(name, **options)
    _proposed(await custodian.import_components(key, components=components, kcv=kcv, why=why))


@main.command()
@click.argument("change_id")
@as_operator
async def component(custodian: KeyCustodian, change_id: str) -> None:
    """Bring a component of CHANGE_ID: asked for without echo, or read as one line from a pipe."""
    if sys.stdin.isatty():
        text = click.prompt("component (hexadecimal, not shown)", hide_input=True)
    else:
        text = sys.stdin.readline()
    try:
        value = bytes.fromhex(text)
    except ValueError:
        raise WrongUseError("a component is hexadecimal digits") from None
    answer = await custodian.submit_component(change_id, value)
    click.echo(f"check value {answer.component_kcv}: compare it with your letter")
    click.echo(f"components missing: {answer.components_missing}")


@main.command("import-block")
@click.argument("name")
@click.argument("key_block")
@click.option("--under", type=KEY, required=True, help="Key-block protection key.")
@click.option("--card-key-option", type=click.Choice(("A", "B")), default=None)
@_why
@as_operator
async def import_block(
    custodian: KeyCustodian, name: str, key_block: str, under: Any, card_key_option: str | None, why: str
) -> None:
    """Propose to bring a key in as a key block (- reads it from a pipe)."""
    block = sys.stdin.readline().strip() if key_block == "-" else key_block
    _proposed(await custodian.import_block(name, block, under=under, why=why, option=card_key_option or ""))


@main.command("export-block")
@click.argument("key_version", type=KEY_VERSION)
@click.option("--under", type=KEY, required=True, help="Key-block protection key.")
@_why
@as_operator
async def export_block(custodian: KeyCustodian, key_version: Any, under: Any, why: str) -> None:
    """Propose to give a key away as a key block; the approval tells the block."""
    _proposed(await custodian.export_block(key_version, under=under, why=why))


@main.command()
@click.argument("key_version", type=KEY_VERSION)
@_why
@as_operator
async def activate(custodian: KeyCustodian, key_version: Any, why: str) -> None:
    """Propose to put a version into use; the one that was active then verifies only."""
    _proposed(await custodian.activate(key_version, why=why))


@main.command()
@click.argument("name")
@_why
@as_operator
async def rotate(custodian: KeyCustodian, name: str, why: str) -> None:
    """Propose to renew a key."""
    _proposed(await custodian.rotate(name, why=why))


@main.command()
@click.argument("key_version", type=KEY_VERSION)
@_why
@as_operator
async def retire(custodian: KeyCustodian, key_version: Any, why: str) -> None:
    """Propose to take a version out of use: it then verifies only."""
    _proposed(await custodian.retire(key_version, why=why))


@main.command()
@click.argument("key_version", type=KEY_VERSION)
@_why
@as_operator
async def destroy(custodian: KeyCustodian, key_version: Any, why: str) -> None:
    """Propose to destroy a version, seven days after the approval."""
    _proposed(await custodian.destroy(key_version, why=why))


@main.command("cancel-destruction")
@click.argument("key_version", type=KEY_VERSION)
@_why
@as_operator
async def cancel_destruction(custodian: KeyCustodian, key_version: Any, why: str) -> None:
    """Propose to call a destruction off."""
    _proposed(await custodian.cancel_destruction(key_version, why=why))


@main.command()
@click.argument("change_id")
@click.option("--yes", is_flag=True, help="Do not ask, once it is shown, whether to approve it.")
@as_operator
async def approve(custodian: KeyCustodian, change_id: str, yes: bool) -> None:
    """Show what another operator proposed, approve it, and have it carried out."""
    change = await custodian.change(change_id)
    if change is None:
        raise WrongUseError("no such change")
    _shown(change)
    if not yes and sys.stdin.isatty() and not click.confirm("approve this?"):
        raise WrongUseError("not approved")
    answer = await custodian.approve(change_id)
    key = answer.key
    click.echo(f"{answer.change.kind} done: {_key_text(key.name, key.version)} {_state(key)}, kcv {key.kcv}")
    if answer.key_block:
        click.echo(answer.key_block)


@main.command()
@click.argument("change_id")
@as_operator
async def reject(custodian: KeyCustodian, change_id: str) -> None:
    """Reject what another operator proposed, or withdraw one's own."""
    change = await custodian.reject(change_id)
    click.echo(f"{change.kind} of {_key_text(change.key_name, change.key_version)} rejected")


@main.command()
@click.argument("key", type=KEY)
@click.option("--psn", default="00", show_default=True, help="PAN sequence number.")
@click.option("--amount-minor", type=int, required=True, help="Amount (9F02) in 分.")
@click.option("--arqc", type=HEX, required=True, help="9F26, 8 bytes.")
@click.option("--atc", type=click.IntRange(1, 0xFFFF), required=True, help="9F36.")
@click.option("--unpredictable-number", type=HEX, required=True, help="9F37, 4 bytes.")
@click.option("--tvr", type=HEX, required=True, help="95, 5 bytes.")
@click.option("--aip", type=HEX, required=True, help="82, 2 bytes.")
@click.option("--iad", type=HEX, required=True, help="9F10, 7 to 32 bytes.")
@click.option("--date", "transaction_date", required=True, help="9A, YYMMDD.")
@click.option("--type", "transaction_type", type=click.IntRange(0, 99), default=0, help="9C.")
@click.option("--country", "terminal_country_code", default="156", show_default=True, help="9F1A.")
@click.option("--session-keys", type=click.Choice(("PBOC", "EMV_COMMON")), default="PBOC")
@as_operator
async def explain(
    custodian: KeyCustodian, key: Any, psn: str, amount_minor: int, session_keys: str, **elements: Any
) -> None:
    """Tell why a cryptogram was wrong; the card number is asked for, or read as one line from a pipe."""
    pan = click.prompt("card number", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    answer = await custodian.explain(
        key,
        pan=pan.strip(),
        psn=psn,
        chip=common_pb2.ChipCryptogram(**elements),
        amount_minor=amount_minor,
        session_key_method=session_keys,
    )
    click.echo(answer.finding)
    if answer.expected:
        table = Table("", "the core computed", "the card seems to compute")
        fitting = dict(part.split("=", 1) for part in answer.fitting)
        for part in answer.expected:
            name, _, value = part.partition("=")
            other = fitting.get(name, "")
            table.add_row(name, value, other if other != value else "the same")
        print_table(table)


def _shown(change: pb.KeyChange) -> None:
    """What an operator must know before approving."""
    click.echo(f"{change.kind} of {_key_text(change.key_name, change.key_version)}: {_change_state(change)}")
    for detail in change.details:
        name, _, value = detail.partition("=")
        click.echo(f"  {name:16}{value}")
    click.echo(
        f"proposed by {change.proposed_by} at {_moment(change.proposed_at_unix_ms)}: {change.justification}"
    )


def _change_state(change: pb.KeyChange) -> str:
    return pb.KeyChangeState.Name(change.state).removeprefix("KEY_CHANGE_STATE_")


def _proposed(change: pb.KeyChange) -> None:
    click.echo(f"proposed {change.kind} of {_key_text(change.key_name, change.key_version)}")
    if change.components_needed:
        missing = change.components_needed - change.components_given
        click.echo(f"components missing: {missing}; each operator: onecard keys component {change.change_id}")
    click.echo(f"another operator: onecard keys approve {change.change_id}")


def _key_cells(key: pb.KeyDescription) -> list[str]:
    is_exportable = key.exportability == pb.KEY_EXPORTABILITY_EXPORTABLE
    return [
        key.name,
        str(key.version),
        key.usage,
        pb.KeyCipher.Name(key.cipher).removeprefix("KEY_CIPHER_"),
        key.kcv,
        _state(key),
        "yes" if is_exportable else "no",
        _moment(key.destroy_at_unix_ms),
    ]


def _state(key: pb.KeyDescription) -> str:
    return pb.KeyLifeState.Name(key.state).removeprefix("KEY_LIFE_STATE_")


def _key_text(name: str, version: int) -> str:
    return f"{name}/{version}" if version else name


def _moment(unix_ms: int) -> str:
    return f"{datetime.fromtimestamp(unix_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}" if unix_ms else ""
