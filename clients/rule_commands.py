"""``onecard rules``: the administration of rules from the command line, over gRPC, as one operator.

Whoever proposes a change cannot approve it: the second operator runs ``onecard rules approve`` with a certificate of
their own, and is shown what it changes before.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from onecard.v1 import rules_pb2 as pb
from rich.table import Table

from clients.channel import new_request_id
from clients.key_access import WrongUseError, as_operator_with, print_table
from clients.rule_editor import RuleEditor
from clients.rule_file import read_rules

KINDS = tuple(kind.removeprefix("RULE_KIND_").lower() for kind in pb.RuleKind.keys()[1:])
# Of a fleet's change, more would scroll away what matters.
RULES_SHOWN = 20

as_operator = as_operator_with(RuleEditor)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Read and change the rules that money decisions follow; one operator proposes, another approves."""


@main.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("prefix", default="")
@as_operator
async def list_rules(editor: RuleEditor, kind: str, prefix: str) -> None:
    """List the rules of KIND that are in force, of all subjects or of those that begin with PREFIX."""
    table = Table("subject", "rule", "version", "change")
    async for rule in editor.rules(_number(kind), prefix):
        table.add_row(rule.subject, rule.content, str(rule.version), rule.change_id)
    print_table(table)


@main.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("subject", required=False)
@click.argument("content", required=False)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Rules of many subjects: .json or .csv.",
)
@click.option("--why", required=True, help="Justification, for the history.")
@click.option("--request-id", default="", help="Id of a proposal that broke off, to send it again.")
@as_operator
async def propose(
    editor: RuleEditor,
    kind: str,
    subject: str | None,
    content: str | None,
    path: Path | None,
    why: str,
    request_id: str,
) -> None:
    """Propose a rule: SUBJECT and its CONTENT as a JSON object; or all of a file, as one change."""
    if path is not None and subject is None:
        try:
            rules = read_rules(path)
        except (ValueError, OSError) as error:
            raise WrongUseError(f"{path}: {_one_line(error)}") from None
    elif path is None and subject is not None and content is not None:
        rules = [(subject, content)]
    else:
        raise WrongUseError("say SUBJECT and CONTENT, or --file")
    request_id = request_id or new_request_id()
    if path is not None:
        click.echo(f"if this breaks off, repeat it with --request-id {request_id}", err=True)
    change = await editor.propose(_number(kind), rules, why=why, request_id=request_id)
    click.echo(f"proposed {_rules(change.rule_count)} of kind {kind}")
    click.echo(f"another operator: onecard rules approve {change.change_id}")


@main.command()
@click.argument("change_id")
@as_operator
async def show(editor: RuleEditor, change_id: str) -> None:
    """Show a change, with all its rules beside those before them."""
    answer = await editor.change(change_id, rules_max=1_000)
    _show_change(answer)
    table = _change_table(answer)
    while answer.next_page_token:
        answer = await editor.change(change_id, rules_max=1_000, after=answer.next_page_token)
        _add_rules(table, answer)
    print_table(table)


@main.command()
@click.argument("change_id")
@click.option("--yes", is_flag=True, help="Do not ask, once it is shown, whether to approve it.")
@as_operator
async def approve(editor: RuleEditor, change_id: str, yes: bool) -> None:
    """Show what another operator proposed, and put it in force."""
    answer = await editor.change(change_id, rules_max=RULES_SHOWN)
    _show_change(answer)
    print_table(_change_table(answer))
    if answer.next_page_token:
        click.echo(f"and {answer.rules_given - len(answer.rules):,} more: onecard rules show {change_id}")
    if answer.rules_given != answer.change.rule_count:
        raise WrongUseError("not approved: its rules are not all there, the proposal broke off")
    if not yes and not sys.stdin.isatty():
        raise WrongUseError("not approved: without a terminal to ask on, --yes must say so")
    if not yes and not click.confirm("approve this?"):
        raise WrongUseError("not approved")
    change = await editor.approve(change_id)
    click.echo(f"{_rules(change.rule_count)} in force, version {change.version}")


@main.command()
@click.argument("change_id")
@as_operator
async def reject(editor: RuleEditor, change_id: str) -> None:
    """Reject what another operator proposed, or withdraw one's own."""
    change = await editor.reject(change_id)
    click.echo(f"change of {_rules(change.rule_count)} of kind {_kind(change)} rejected")


@main.command()
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.argument("subject", default="")
@click.option("--waiting", is_flag=True, help="Only those that wait for approval.")
@as_operator
async def history(editor: RuleEditor, kind: str | None, subject: str, waiting: bool) -> None:
    """List changes, the latest first: all, those of KIND, or those of one SUBJECT."""
    columns = ("change", "kind", "rules", "state", "version", "proposed", "by", "decided", "by", "why")
    table = Table(*columns)
    number = _number(kind) if kind else pb.RULE_KIND_UNSPECIFIED
    async for change in editor.changes(kind=number, subject=subject, only_proposed=waiting):
        table.add_row(
            change.change_id,
            _kind(change),
            str(change.rule_count),
            _state(change),
            str(change.version or ""),
            _moment(change.proposed_at_unix_ms),
            change.proposed_by,
            _moment(change.decided_at_unix_ms),
            change.decided_by,
            change.justification,
        )
    print_table(table)


def _show_change(answer: pb.GetRuleChangeResponse) -> None:
    """What an operator must know before approving."""
    change = answer.change
    click.echo(f"{_rules(change.rule_count)} of kind {_kind(change)}: {_state(change)}")
    click.echo(
        f"proposed by {change.proposed_by} at {_moment(change.proposed_at_unix_ms)}: {change.justification}"
    )
    if answer.rules_given != change.rule_count:
        click.echo(f"{change.rule_count - answer.rules_given:,} rules did not come yet")


def _change_table(answer: pb.GetRuleChangeResponse) -> Table:
    waits = answer.change.state == pb.RULE_CHANGE_STATE_PROPOSED
    table = Table("subject", "in force now" if waits else "before", "proposed" if waits else "rule")
    _add_rules(table, answer)
    return table


def _add_rules(table: Table, answer: pb.GetRuleChangeResponse) -> None:
    for rule in answer.rules:
        table.add_row(rule.subject, rule.content_before or "-", rule.content)


def _number(kind: str) -> "pb.RuleKind.ValueType":
    return pb.RuleKind.Value(f"RULE_KIND_{kind.upper()}")


def _kind(change: pb.RuleChange) -> str:
    return pb.RuleKind.Name(change.kind).removeprefix("RULE_KIND_").lower()


def _state(change: pb.RuleChange) -> str:
    return pb.RuleChangeState.Name(change.state).removeprefix("RULE_CHANGE_STATE_")


def _rules(count: int) -> str:
    return "1 rule" if count == 1 else f"{count:,} rules"


def _moment(unix_ms: int) -> str:
    return f"{datetime.fromtimestamp(unix_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}" if unix_ms else ""


def _one_line(error: ValueError | OSError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "must be UTF-8"
    return error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
