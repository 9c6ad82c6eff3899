"""``onecard keys``: the ceremonies from the command line, each operator with a certificate of their own."""

import asyncio
import os
import pty
import re
import secrets
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from core_under_test import Core
from key_operators import Ceremony
from onecard.v1 import keys_pb2 as pb
from virtual_card import AIP, IAD, TRANSACTION_DATE, TVR, UNPREDICTABLE_NUMBER, VirtualCard

from crypto.key_components import KeyComponent
from crypto.key_store.software import SoftwareKeyStore
from crypto.keys import Cipher, Key, KeyUsage
from server.cli import keys as key_commands
from server.cli import main
from server.development_ca import issue_participant_certificate

CHANGE_ID = re.compile(r"onecard keys approve (\S+)")
ONE, TWO = "custodian-01", "custodian-02"
SM4_KEY = ("--cipher", "SM4", "--why", "cli test")


class Shell:
    """Runs ``onecard keys`` in this process; a pipe is on its stdin."""

    def __init__(self, core: Core) -> None:
        self.data_dir = core.data_dir

    async def run(self, operator: str, *arguments: str, stdin: str = "") -> Result:
        command = [*arguments, "--as", operator, "--data-dir", str(self.data_dir)]
        # The commands run an event loop of their own.
        return await asyncio.to_thread(CliRunner().invoke, main, ["keys", *command], input=stdin)

    async def says(self, operator: str, *arguments: str, stdin: str = "") -> str:
        result = await self.run(operator, *arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.output

    async def done(self, *arguments: str) -> str:
        """Proposes as one operator and approves as another; what the approval says."""
        found = CHANGE_ID.search(await self.says(ONE, *arguments))
        assert found is not None
        return await self.says(TWO, "approve", found.group(1))


@pytest.fixture
def shell(ceremony: Ceremony, key_core: Core) -> Shell:
    # Asking for the ceremony makes the participants; their certificates are made when they call.
    for participant in (ONE, TWO, "key-bank-01"):
        issue_participant_certificate(key_core.data_dir, participant)
    return Shell(key_core)


async def test_a_key_lives_and_dies_on_the_command_line(shell: Shell) -> None:
    name = "zpk-cli"
    said = await shell.done("generate", name, "--usage", "PIN_ENCRYPTION", "--exportable", *SM4_KEY)
    done = said.splitlines()[-1]
    assert re.fullmatch(rf"GENERATE done: {name}/1 PRE_ACTIVE, kcv [0-9A-F]{{6}}", done)
    why = ("--why", "cli test")
    assert "ACTIVE" in await shell.done("activate", f"{name}/1", *why)
    block = (await shell.done("export-block", f"{name}/1", "--under", "kbpk-sm4", *why)).splitlines()[-1]
    imported = await shell.done("import-block", f"{name}-twin", block, "--under", "kbpk-sm4/1", *why)
    assert f"\nIMPORT_BLOCK done: {name}-twin/1 PRE_ACTIVE" in imported
    assert imported.rpartition(" ")[2].strip() == done.rpartition(" ")[2]
    assert f"ROTATE done: {name}/2 ACTIVE" in await shell.done("rotate", name, *why)
    assert "VERIFY_ONLY" in await shell.done("retire", f"{name}/2", *why)
    assert "DESTROY done" in await shell.done("destroy", f"{name}/1", *why)
    listed = await shell.says(ONE, "list")
    assert name in listed
    assert "VERIFY_ONLY" in listed
    await shell.done("cancel-destruction", f"{name}/1", *why)
    audit = await shell.says(ONE, "audit", name)
    assert audit.count("PROPOSED") == audit.count("EXECUTED") == 7
    assert "CANCEL_DESTRUCTION" in await shell.says(TWO, "changes")


async def test_an_approval_shows_first_what_is_approved(shell: Shell) -> None:
    arguments = ("generate", "zpk-shown-cli", "--usage", "PIN_ENCRYPTION", "--exportable", *SM4_KEY)
    change_id = CHANGE_ID.search(await shell.says(ONE, *arguments)).group(1)
    assert "exportability=EXPORTABLE" in await shell.says(TWO, "changes", "--waiting")
    lines = (await shell.says(TWO, "approve", change_id, "--yes")).splitlines()
    assert lines[0] == "GENERATE of zpk-shown-cli: PROPOSED"
    assert [line.split() for line in lines[1:5]] == [
        ["usage", "PIN_ENCRYPTION"],
        ["cipher", "SM4"],
        ["key_bytes", "16"],
        ["exportability", "EXPORTABLE"],
    ]
    assert lines[5].startswith(f"proposed by {ONE} at ")
    assert lines[5].endswith(": cli test")
    missing = await shell.run(TWO, "approve", "00000000-0000-0000-0000-00000000dead")
    assert (missing.exit_code, missing.output) == (2, "onecard: no such change\n")


@pytest.mark.parametrize(
    ("answer", "flags", "exit_code"),
    [("n", (), 2), ("y", (), 0), ("n", ("--yes",), 0)],
    ids=["no", "yes", "flag"],
)
async def test_a_person_is_asked_before_the_approval(
    shell: Shell, ceremony: Ceremony, answer: str, flags: tuple[str, ...], exit_code: int
) -> None:
    arguments = ("generate", "imk-asked", "--usage", "IMK_AC", *SM4_KEY)
    change_id = CHANGE_ID.search(await shell.says(ONE, *arguments)).group(1)
    command = [sys.executable, "-m", "server.cli", "keys", "approve", change_id, *flags, "--as", TWO]
    command += ["--data-dir", str(shell.data_dir)]
    person, terminal = pty.openpty()
    try:
        os.write(person, f"{answer}\n".encode())
        done = await asyncio.to_thread(
            subprocess.run, command, stdin=terminal, capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        os.close(person)
        os.close(terminal)
    assert done.returncode == exit_code, done.stderr
    assert done.stdout.startswith("GENERATE of imk-asked: PROPOSED\n")
    assert ("approve this?" in done.stdout) is not bool(flags)
    expected = pb.KEY_CHANGE_STATE_PROPOSED if exit_code else pb.KEY_CHANGE_STATE_EXECUTED
    assert (await ceremony.one.change(change_id)).state == expected
    if exit_code:
        assert done.stderr == "onecard: not approved\n"
        await ceremony.one.reject(change_id)


async def test_components_are_read_from_a_pipe_and_never_echoed(shell: Shell) -> None:
    parts = [secrets.token_bytes(16) for _ in range(2)]
    whole = bytes(one ^ other for one, other in zip(*parts, strict=True))
    kcv = Key(Cipher.SM4, KeyUsage.IMK_AC, whole).kcv()
    arguments = ("import-components", "imk-cli", "--usage", "IMK_AC", "--kcv", kcv, *SM4_KEY)
    proposed = await shell.says(ONE, *arguments)
    assert "components missing: 2" in proposed
    change_id = CHANGE_ID.search(proposed).group(1)
    for missing, (operator, part) in zip((1, 0), zip((ONE, TWO), parts, strict=True), strict=True):
        said = await shell.says(operator, "component", change_id, stdin=f"{part.hex(' ')}\n")
        assert f"check value {KeyComponent(Cipher.SM4, part).kcv()}" in said
        assert f"components missing: {missing}" in said
        assert part.hex() not in said.replace(" ", "").lower()
    assert f"kcv {kcv}" in await shell.says(TWO, "approve", change_id)


async def test_what_is_no_component_is_not_quoted(shell: Shell) -> None:
    result = await shell.run(ONE, "component", secrets.token_hex(16), stdin="0123456789abcdefXY\n")
    assert result.exit_code == 2
    assert result.output == "onecard: a component is hexadecimal digits\n"


async def test_a_proposal_is_withdrawn(shell: Shell) -> None:
    proposed = await shell.says(ONE, "generate", "imk-cli-off", "--usage", "IMK_AC", *SM4_KEY)
    change_id = CHANGE_ID.search(proposed).group(1)
    assert change_id in await shell.says(ONE, "changes", "--waiting")
    assert await shell.says(ONE, "reject", change_id) == "GENERATE of imk-cli-off rejected\n"
    assert change_id not in await shell.says(ONE, "changes", "--waiting")


async def test_refusals_are_one_line_with_their_reason(shell: Shell) -> None:
    proposed = await shell.says(ONE, "generate", "imk-cli-alone", "--usage", "IMK_AC", *SM4_KEY)
    change_id = CHANGE_ID.search(proposed).group(1)
    cases = [
        ((ONE, "approve", change_id), "SECOND_PERSON_REQUIRED"),
        (("key-bank-01", "list"), "OPERATOR_ONLY"),
        ((ONE, "rotate", "no-such-key", "--why", "x"), "KEY_UNKNOWN"),
        ((ONE, "rotate", "blind-index", "--why", "x"), "KEY_STATE"),
        ((ONE, "generate", "imk-cli-x", "--usage", "UDK_AC", *SM4_KEY), "MALFORMED_FIELD"),
    ]
    for arguments, reason in cases:
        result = await shell.run(*arguments)
        assert result.exit_code == 1, arguments
        assert result.stderr.endswith(f"({reason})\n")
        assert result.stderr.count("\n") == 1


async def test_a_wrong_configuration_is_one_line_and_exit_code_2(shell: Shell, tmp_path: Path) -> None:
    missing = await shell.run("nobody-here", "list")
    assert missing.exit_code == 2
    assert missing.output.startswith("onecard: cannot read ")
    half = await shell.run(ONE, "list", "--certificate", str(tmp_path / "x.pem"))
    assert (half.exit_code, half.output.count("\n")) == (2, 1)
    versionless = await shell.run(ONE, "activate", "imk-ac-sm4", "--why", "x")
    assert versionless.exit_code == 2
    assert "say the version" in versionless.output


async def test_a_cryptogram_is_explained_to_whoever_asks_by_pipe(shell: Shell, key_core: Core) -> None:
    card = VirtualCard(key_core.store, 11)
    chip = card.sign(100)
    said = await shell.says(
        *(ONE, "explain", "imk-ac-sm4/1", "--amount-minor", "100", "--arqc", chip.arqc.hex()),
        *("--atc", str(chip.atc + 1), "--unpredictable-number", UNPREDICTABLE_NUMBER.hex()),
        *("--tvr", TVR.hex(), "--aip", AIP.hex(), "--iad", IAD.hex(), "--date", TRANSACTION_DATE),
        stdin=f"{card.pan}\n",
    )
    assert said.startswith("FITS_OTHER_PARAMETERS\n")
    assert re.search(rf"atc\W+{chip.atc + 1}\W+{chip.atc}\W", said)
    assert card.pan not in said


async def test_the_whole_command_speaks_to_an_address_with_given_files(shell: Shell, key_core: Core) -> None:
    files = issue_participant_certificate(key_core.data_dir, ONE)
    command = [sys.executable, "-m", "server.cli", "keys", "list", "--as", ONE, "--address", key_core.address]
    command += ["--certificate", str(files.certificate), "--key", str(files.key)]
    command += ["--authority", str(files.authority)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONECARD_")}
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "imk-ac-sm4" in done.stdout
    assert "ACTIVE" in done.stdout


def test_a_key_store_is_made_once(tmp_path: Path) -> None:
    command = ["keys", "initialise", "--data-dir", str(tmp_path)]
    made = CliRunner().invoke(main, command)
    assert (made.exit_code, made.output) == (0, f"key store made in {tmp_path / 'keys'}\n")
    kcvs = {info.ref: info.kcv for info in SoftwareKeyStore.open(tmp_path / "keys").describe()}
    assert len(kcvs) > 10
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 2
    assert again.output == f"onecard: key store: {tmp_path / 'keys'} already holds one\n"
    assert {info.ref: info.kcv for info in SoftwareKeyStore.open(tmp_path / "keys").describe()} == kcvs


def test_every_command_has_a_help_text() -> None:
    context = click.Context(key_commands)
    for name in key_commands.list_commands(context):
        assert key_commands.get_command(context, name).help, name
    assert set(key_commands.list_commands(context)) == {
        *("list", "changes", "audit", "generate", "import-components", "component", "import-block"),
        *("export-block", "activate", "rotate", "retire", "destroy", "cancel-destruction", "approve"),
        *("reject", "explain", "initialise"),
    }
