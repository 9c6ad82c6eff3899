"""A core of the demonstration's own: ``onecard serve`` in a fresh directory, participants by its command line.

Stopped by its process id and removed with its directory, however the day ends.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

READY_S_MAX: Final = 60.0
STOP_S_MAX: Final = 30.0
POLL_S: Final = 0.05
LOG_LINES: Final = 5
# Workers read participants and grants again every second.
GRANTS_IN_FORCE_S: Final = 2.2

BANK, AGENCY, TERMINAL_OPERATOR, FUND = "demo-bank", "demo-agency", "demo-terminals", "demo-fund"
OPERATORS: Final = ("demo-operator-a", "demo-operator-b")
PARTICIPANTS: Final[dict[str, tuple[str, dict[str, tuple[str, ...]]]]] = {
    BANK: (
        "bank",
        {
            "rpc_class": (
                *("authorization", "authorization_lookup", "deposit", "card_issue"),
                *("card_status", "card_loss", "card_code"),
                *("issue_pin", "verify_pin", "change_pin", "unblock_pin"),
                *("translate_pin", "generate_issuer_script"),
            ),
            "region": ("36",),
            "catalogue_item": ("card.apply", "card.loss", "card.status", "card.code", "card.pin"),
            "key": ("zpk-sm4", "zpk-tdes", "bdk-sm4", "imk-ac-sm4", "imk-smi-sm4"),
        },
    ),
    AGENCY: (
        "agency",
        {
            "rpc_class": ("identity", "card_authentication", "card_status"),
            "region": ("36",),
            "catalogue_item": ("identity.counter", "card.status"),
        },
    ),
    TERMINAL_OPERATOR: (
        "terminal_operator",
        {
            "rpc_class": (
                *("authorization", "authorization_lookup", "advice", "card_token"),
                "settlement_events",
            ),
            "region": ("36",),
            "catalogue_item": ("card.token",),
            "key": ("bdk-sm4",),
        },
    ),
    FUND: ("agency", {"rpc_class": ("authorization", "benefit_credit"), "region": ("36",)}),
    **{
        operator: ("operator", {"rpc_class": ("key_custodian", "key_view", "key_diagnosis", "rule_editor")})
        for operator in OPERATORS
    },
}


class CoreError(Exception):
    """The core did not start, or a command of it failed; the text says what it said."""


@dataclass(frozen=True)
class DemoCore:
    """A running core."""

    data_dir: Path

    def facts(self) -> dict[str, Any]:
        """Ports and process ids, as the core wrote them last."""
        facts: dict[str, Any] = json.loads((self.data_dir / "onecard.json").read_text())
        return facts

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.facts()['port']}"

    def worker_pids(self) -> tuple[int, ...]:
        return tuple(self.facts()["worker_pids"])

    async def command(self, *arguments: str) -> str:
        """Runs ``onecard`` on this core and returns what it printed.

        Raises:
            CoreError: it failed.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.cli", *arguments, "--data-dir", str(self.data_dir)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environment(),
        )
        output, _ = await process.communicate()
        text = output.decode(errors="replace").rstrip()
        if process.returncode:
            raise CoreError(f"onecard {' '.join(arguments[:2])} failed:\n{text}")
        return text

    async def add_participants(self) -> None:
        """Adds the callers with their certificates, and waits until every worker knows their grants."""
        await asyncio.gather(*(self._add(name, *entry) for name, entry in PARTICIPANTS.items()))
        await asyncio.sleep(GRANTS_IN_FORCE_S)

    async def _add(self, name: str, kind: str, grants: dict[str, tuple[str, ...]]) -> None:
        await self.command("participants", "add", name, "--name", name, "--kind", kind)
        for grant_kind, values in grants.items():
            await self.command("participants", "grant", name, grant_kind, *values)


@contextlib.asynccontextmanager
async def demo_core(*, workers: int) -> AsyncIterator[DemoCore]:
    """Starts a core and, at the end, stops it and removes what it wrote.

    Raises:
        CoreError: it did not start.
    """
    root = _fresh_directory()
    log_path = root / "serve.log"
    try:
        process = _start(root / "data", log_path, workers=workers)
        try:
            core = DemoCore(root / "data")
            await _until_ready(core, process, log_path)
            yield core
        finally:
            await _stop(process)
    finally:
        _remove(root)


def _fresh_directory() -> Path:
    root = Path(tempfile.mkdtemp(prefix="onecard-demo-"))
    # PostgreSQL never runs as root: its user has to pass through.
    root.chmod(0o711)
    return root


def _start(data_dir: Path, log_path: Path, *, workers: int) -> subprocess.Popen[bytes]:
    flags = ("--port", "0", "--metrics-port", "0", "--workers", str(workers), "--log-level", "warning")
    with log_path.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "server.cli", "serve", "--data-dir", str(data_dir), *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            # Ctrl-C is for the demonstration, which then stops the core in order.
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    # No setting of the caller's shell may point the demonstration at another instance.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ONECARD_")}
    return environment | {"COLUMNS": "110"}


async def _until_ready(core: DemoCore, process: subprocess.Popen[bytes], log_path: Path) -> None:
    end_s = asyncio.get_running_loop().time() + READY_S_MAX
    while asyncio.get_running_loop().time() < end_s and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            core.facts()
            return
        await asyncio.sleep(POLL_S)
    log = await asyncio.to_thread(log_path.read_text, errors="replace")
    raise CoreError("the core did not start:\n" + "\n".join(log.splitlines()[-LOG_LINES:]))


async def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.to_thread(process.wait, STOP_S_MAX)
    except subprocess.TimeoutExpired:
        # Its children end with it (PR_SET_PDEATHSIG).
        process.kill()
        process.wait()


def _remove(root: Path) -> None:
    cluster = root / "data" / "postgres"
    if cluster.is_symlink():
        # Root in a closed directory: the cluster lies where PostgreSQL's user may go.
        shutil.rmtree(Path(os.readlink(cluster)).parent, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
