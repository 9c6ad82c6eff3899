"""``onecard rules``: changes from the command line, each operator with a certificate of their own."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from core_under_test import Core
from rule_operators import ACQUIRER, RuleOffice

from server.cli import main
from server.development_ca import issue_participant_certificate

CHANGE_ID = re.compile(r"onecard rules approve (\S+)")
ONE, TWO = "rule-operator-01", "rule-operator-02"
WHY = ("--why", "cli test")


class Shell:
    """Runs ``onecard rules`` in this process; a pipe is on its stdin."""

    def __init__(self, core: Core) -> None:
        self.data_dir = core.data_dir

    async def run(self, operator: str, *arguments: str) -> Result:
        command = [*arguments, "--as", operator, "--data-dir", str(self.data_dir)]
        # The commands run an event loop of their own.
        return await asyncio.to_thread(CliRunner().invoke, main, ["rules", *command])

    async def says(self, operator: str, *arguments: str) -> str:
        result = await self.run(operator, *arguments)
        assert result.exit_code == 0, result.output
        return result.output

    async def proposed(self, *arguments: str) -> str:
        """Id of the change that was proposed."""
        found = CHANGE_ID.search(await self.says(ONE, "propose", *arguments, *WHY))
        assert found is not None
        return found.group(1)


@pytest.fixture
def shell(office: RuleOffice, rule_core: Core) -> Shell:
    # Asking for the office makes the participants; their certificates are made when they call.
    for participant in (ONE, TWO, ACQUIRER):
        issue_participant_certificate(rule_core.data_dir, participant)
    return Shell(rule_core)


async def test_a_rule_goes_its_way_on_the_command_line(shell: Shell) -> None:
    subject = f"{ACQUIRER}/CLI1"
    change_id = await shell.proposed("terminal", subject, '{"is_blocked": true}')
    assert change_id in await shell.says(TWO, "history", "--waiting")
    unasked = await shell.run(TWO, "approve", change_id)
    assert (unasked.exit_code, "--yes must say so" in unasked.output) == (2, True), unasked.output
    assert change_id in await shell.says(TWO, "history", "--waiting")
    lines = (await shell.says(TWO, "approve", change_id, "--yes")).splitlines()
    assert lines[0] == "1 rule of kind terminal: PROPOSED"
    assert lines[1].startswith(f"proposed by {ONE} at ")
    assert lines[1].endswith(": cli test")
    assert re.fullmatch(r"1 rule in force, version \d+", lines[-1])
    listed = await shell.says(ONE, "list", "terminal", subject)
    assert '{"is_blocked": true}' in listed
    second = await shell.proposed("terminal", subject, "{}")
    shown = await shell.says(TWO, "show", second)
    assert '{"is_blocked": true}' in shown
    assert "in force now" in shown
    assert await shell.says(TWO, "reject", second) == "change of 1 rule of kind terminal rejected\n"
    history = await shell.says(ONE, "history", "terminal", subject)
    assert history.index(second) < history.index(change_id)
    assert "REJECTED" in history
    assert second not in await shell.says(TWO, "history", "terminal", "--waiting")


async def test_a_fleet_comes_from_a_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "fleet.csv"
    lines = [f"{ACQUIRER}/CSV{n:04},bdk-{n % 3},false" for n in range(2_500)]
    path.write_text("\n".join(["subject,mac_key,gives_cash", *lines]))
    change_id = await shell.proposed("terminal", "--file", str(path))
    shown = await shell.says(TWO, "approve", change_id, "--yes")
    assert "2,500 rules of kind terminal: PROPOSED" in shown
    assert f"and 2,480 more: onecard rules show {change_id}" in shown
    assert f"{ACQUIRER}/CSV2499" in await shell.says(ONE, "list", "terminal", f"{ACQUIRER}/CSV")
    assert (await shell.says(ONE, "show", change_id)).count(f"{ACQUIRER}/CSV") == 2_500
    # Sent again under its id, for instance because it broke off, it is the same change.
    again = await shell.proposed("terminal", "--file", str(path), "--request-id", change_id)
    assert again == change_id


async def test_json_files_are_read_too(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "merchants.json"
    entries = [{"subject": f"{ACQUIRER}/J{n}", "content": {"category": f"54{n}1"}} for n in range(3)]
    path.write_text(json.dumps(entries))
    await shell.says(TWO, "approve", await shell.proposed("merchant", "--file", str(path)), "--yes")
    assert '"5421"' in await shell.says(ONE, "list", "merchant", f"{ACQUIRER}/J2")


async def test_proposal_that_broke_off_is_not_approved(shell: Shell, office: RuleOffice) -> None:
    change = await office.one.propose("terminal", {}, f"{ACQUIRER}/CLI2", rule_count=2)
    result = await shell.run(TWO, "approve", change.change_id, "--yes")
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("onecard: not approved: its rules are not all there")
    await office.one.reject(change.change_id)


async def test_mistakes_and_refusals_are_one_line(shell: Shell, tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_text("subject,is_blocked\nx\n")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    subject = f"{ACQUIRER}/CLI9"
    own = await shell.proposed("terminal", subject, "{}")
    unknown = "00000000-0000-0000-0000-00000000dead"
    both = ("propose", "terminal", subject, "--file", str(broken), *WHY)
    cases = [
        (2, (ONE, "propose", "terminal", *WHY), "say SUBJECT and CONTENT, or --file"),
        (2, (ONE, "propose", "terminal", subject, *WHY), "say SUBJECT and CONTENT, or --file"),
        (2, (ONE, *both), "say SUBJECT and CONTENT, or --file"),
        (2, (ONE, "propose", "terminal", "--file", str(broken), *WHY), "line 2: must have as many fields"),
        (2, (ONE, "propose", "terminal", "--file", str(binary), *WHY), "must be UTF-8"),
        (1, (ONE, "propose", "terminal", subject, "{", *WHY), "rules[0].content: must be a JSON object"),
        (1, (ONE, "propose", "terminal", "T1", "{}", *WHY), "must be participant/identifier"),
        (
            1,
            (ONE, "propose", "limit", "tap", '{"day_max": 1}', *WHY),
            "day_max: a limit rule has no such key",
        ),
        (1, (ONE, "propose", "terminal", "no-such/T1", "{}", *WHY), "(PARTICIPANT_UNKNOWN)"),
        (1, (ONE, "approve", own, "--yes"), "(SECOND_PERSON_REQUIRED)"),
        (1, (TWO, "approve", unknown, "--yes"), "(RULE_CHANGE_UNKNOWN)"),
        (1, (TWO, "show", "x"), "change_id: must be a UUID"),
        (1, (ACQUIRER, "list", "limit"), "(OPERATOR_ONLY)"),
    ]
    for exit_code, arguments, message in cases:
        result = await shell.run(*arguments)
        assert result.exit_code == exit_code, (arguments, result.output)
        last = result.output.splitlines()[-1]
        assert last.startswith("onecard: "), result.output
        assert message in last
        assert "Traceback" not in result.output
    await shell.says(ONE, "reject", own)
