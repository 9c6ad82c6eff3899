"""``onecard serve``: starts everything in order, keeps it running, and stops it in order.

Lock, port, PostgreSQL, schema, keys, certificates, metrics page, children; on SIGTERM or Ctrl-C the reverse:
children drain first and PostgreSQL stops last. One thread and no grpc in this process, ever: it forks.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import time
from collections import Counter

from server import run_files
from server.database import facts, migrate, pool, statements
from server.database.embedded import EmbeddedPostgres
from server.development_ca import ensure_server_certificate
from server.errors import ConfigurationError
from server.key_stores import ensure_development_store
from server.metrics_page import MetricsPage, prepare_directory
from server.settings import SETTLEMENT_CONNECTIONS, Settings
from server.workers import PAUSE_MAX_S, PAUSE_MIN_S, Child

log = logging.getLogger(__name__)

READY_WAIT_S = 60.0
START_FAILURES_MAX = 3
KILL_AFTER_DRAIN_S = 3.0
ARCHIVE_SETTINGS = ("operations_days", "request_log_hours_min", "time_zone", "business_day_cutoff")
# A request id and a switch key: see server/engine/sql/claim_keys.sql.
CLAIMS_PER_OPERATION = 2


class _StopAskedError(Exception):
    """SIGTERM or Ctrl-C came while starting."""


class Supervisor:
    """One instance, from start to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._data_dir = settings.data_dir
        self._metrics_dir = settings.data_dir / "metrics"
        self._postgres: EmbeddedPostgres | None = None
        self._postgres_restarts = 0
        self._recovery: asyncio.Task[None] | None = None
        self._children: list[Child] = []
        self._page: MetricsPage | None = None
        self._metrics_port: int | None = None
        self._stop_signals = 0
        self._is_serving = False
        self._is_stopping = False
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT.

        Raises:
            ConfigurationError: the instance cannot start; everything already started has been stopped.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGCHLD, self._on_child_signal)
        run_files.open_data_directory(self._data_dir)
        lock = run_files.lock_data_directory(self._data_dir)
        try:
            with run_files.reserve_port(self._settings.host, self._settings.port) as port:
                self._settings = dataclasses.replace(self._settings, port=port.getsockname()[1])
                await self._run_locked()
        except _StopAskedError:
            log.info("stopped while starting")
        finally:
            os.close(lock)

    async def _run_locked(self) -> None:
        try:
            prepare_directory(self._metrics_dir)
            await self._start_database()
            self._prepare_embedded_default()
            self._proceed()
            await self._open_page()
            self._start_children()
            await self._until_workers_serve()
            self._announce()
            while not self._stop_signals:
                await self._until_changed()
        finally:
            self._is_serving = False
            self._is_stopping = True
            await self._stop()

    async def _start_database(self) -> None:
        if self._settings.embedded:
            settings = self._settings
            each = settings.lanes + settings.pool_connections_max + SETTLEMENT_CONNECTIONS
            self._postgres = EmbeddedPostgres(
                self._data_dir,
                connections_max=max(60, settings.workers * each + 20),
                claims_max=settings.workers * settings.lanes * CLAIMS_PER_OPERATION * settings.batch_max,
            )
            await self._postgres.start()
            self._settings = dataclasses.replace(self._settings, socket_dir=self._postgres.socket_dir)
        self._proceed()
        connection = await pool.connect(self._settings.database_dsn, application_name="onecard start")
        try:
            await migrate.migrate(connection)
            await statements.check(connection)
            shards = await facts.settle_shards(connection, asked=self._settings.shards)
            self._settings = dataclasses.replace(self._settings, shards=shards)
            await facts.settle_calendar(
                connection,
                time_zone=self._settings.time_zone,
                cutoff=self._settings.business_day_cutoff,
            )
        finally:
            await connection.close()

    def _prepare_embedded_default(self) -> None:
        """Keys and certificates that nobody had to provide; with a DSN both are the operator's."""
        if not self._settings.embedded:
            return
        ensure_development_store(self._settings)
        if self._settings.tls_certificate is None:
            files = ensure_server_certificate(self._data_dir, host=self._settings.host)
            self._settings = dataclasses.replace(
                self._settings,
                tls_certificate=files.certificate,
                tls_key=files.key,
                tls_client_ca=files.authority,
            )

    async def _open_page(self) -> None:
        if self._settings.metrics_port < 0:
            return
        self._page = MetricsPage(
            self._metrics_dir, alive=self._alive, restarts=self._restarts, missing=self._missing
        )
        self._metrics_port = await self._page.open(self._settings.metrics_host, self._settings.metrics_port)

    def _start_children(self) -> None:
        kinds = [("worker", "server.workers", index) for index in range(self._settings.workers)]
        for kind, module, index in [*kinds, ("housekeeper", "server.housekeeper", 0)]:
            child = Child(
                kind=kind,
                module=module,
                index=index,
                settings=self._settings,
                metrics_dir=self._metrics_dir,
                on_change=self._on_child_change,
            )
            self._children.append(child)
            child.start()

    async def _until_workers_serve(self) -> None:
        deadline = time.monotonic() + READY_WAIT_S
        workers = [child for child in self._children if child.kind == "worker"]
        while not all(worker.is_ready for worker in workers):
            for child in self._children:
                if child.refusal is not None:
                    raise ConfigurationError(child.refusal)
                if child.failures_in_a_row >= START_FAILURES_MAX:
                    raise ConfigurationError(
                        f"{child.name} ends again and again; the log lines above say why"
                    )
            if time.monotonic() > deadline:
                raise ConfigurationError(f"the workers did not serve within {READY_WAIT_S:.0f} s")
            self._proceed()
            await self._until_changed()
        self._is_serving = True

    def _announce(self) -> None:
        self._write_run_file()
        settings = self._settings
        parts = [f"{settings.workers} worker{'s' if settings.workers > 1 else ''}"]
        if self._metrics_port is not None:
            parts.append(f"metrics http://{settings.metrics_host}:{self._metrics_port}/metrics")
        sys.stdout.write(f"onecard ready on {settings.host}:{settings.port} ({', '.join(parts)})\n")
        sys.stdout.flush()

    def _write_run_file(self) -> None:
        pids: dict[str, list[int]] = {"worker": [], "housekeeper": []}
        for child in self._children:
            if child.pid is not None:
                pids[child.kind].append(child.pid)
        facts = {
            "host": self._settings.host,
            "port": self._settings.port,
            "metrics_host": self._settings.metrics_host,
            "metrics_port": self._metrics_port,
            "embedded": self._settings.embedded,
            "shards": self._settings.shards,
            "socket_dir": str(self._settings.socket_dir) if self._settings.socket_dir else None,
            # What `onecard archive` needs to know of this instance.
            "archive": {
                "archive_dir": str(self._settings.archives_dir),
                **{name: getattr(self._settings, name) for name in ARCHIVE_SETTINGS},
            },
            "tls_dir": str(self._data_dir / "tls") if self._settings.embedded else None,
            "supervisor_pid": os.getpid(),
            "worker_pids": pids["worker"],
            "housekeeper_pid": next(iter(pids["housekeeper"]), None),
            "postgres_pid": self._postgres.pid if self._postgres else None,
        }
        run_files.write_run_file(self._data_dir, facts)

    async def _stop(self) -> None:
        """Children drain, those that do not end are killed, then PostgreSQL writes its last checkpoint."""
        run_files.remove_run_file(self._data_dir)
        if self._recovery is not None:
            self._recovery.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._recovery
        signals_before = self._stop_signals
        for child in self._children:
            child.send(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.drain_ms / 1000 + KILL_AFTER_DRAIN_S
        while any(child.pid is not None for child in self._children):
            self._reap(restart=False)
            impatient = self._stop_signals > max(1, signals_before)
            if time.monotonic() > deadline or impatient:
                log.warning("ending children that have not drained")
                for child in self._children:
                    child.send(signal.SIGKILL)
            await self._until_changed(wait_max_s=0.2)
        if self._page is not None:
            await self._page.close()
        if self._postgres is not None:
            await self._postgres.stop()

    def _on_stop_signal(self) -> None:
        self._stop_signals += 1
        self._changed.set()

    def _on_child_signal(self) -> None:
        # Popen.poll collects a process by its own id: what subprocess.run waits for is left alone.
        is_stopping = self._is_stopping or self._stop_signals > 0
        self._reap(restart=not is_stopping)
        postgres_gone = self._is_serving and self._postgres is not None and self._postgres.has_exited()
        if postgres_gone and self._recovery is None and not is_stopping:
            self._recovery = asyncio.create_task(self._recover_postgres())

    def _reap(self, *, restart: bool) -> None:
        for child in self._children:
            child.reap(restart=restart)

    async def _recover_postgres(self) -> None:
        """Starts a PostgreSQL that died; the workers answer UNAVAILABLE until it has recovered."""
        pause_s = PAUSE_MIN_S
        while self._postgres is not None:
            self._postgres_restarts += 1
            log.error("PostgreSQL ended and is started again")
            try:
                await self._postgres.start()
                break
            except Exception as error:  # whatever it is, the next attempt may do better
                log.error("PostgreSQL did not start", exc_info=error)
                await asyncio.sleep(pause_s)
                pause_s = min(PAUSE_MAX_S, pause_s * 2)
        self._recovery = None
        self._on_child_change()

    def _on_child_change(self) -> None:
        if self._is_serving:
            self._write_run_file()
        self._changed.set()

    async def _until_changed(self, *, wait_max_s: float = 1.0) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_max_s):
                await self._changed.wait()
        self._changed.clear()

    def _proceed(self) -> None:
        if self._stop_signals:
            raise _StopAskedError

    def _alive(self) -> dict[str, int]:
        counts = Counter({"worker": 0, "housekeeper": 0})
        counts.update(child.kind for child in self._children if child.is_ready)
        if self._postgres is not None:
            counts["postgres"] = int(not self._postgres.has_exited() and self._recovery is None)
        return dict(counts)

    def _restarts(self) -> dict[str, int]:
        counts = Counter({"worker": 0, "housekeeper": 0})
        for child in self._children:
            counts[child.kind] += child.restarts
        if self._postgres is not None:
            counts["postgres"] = self._postgres_restarts
        return dict(counts)

    def _missing(self) -> list[str]:
        missing = [child.name for child in self._children if not child.is_ready]
        if self._alive().get("postgres") == 0:
            missing.append("postgres")
        return missing if self._is_serving else [*missing, "start"]


def serve(settings: Settings) -> None:
    """Runs an instance in the foreground until it is told to stop."""
    asyncio.run(Supervisor(settings).run())
