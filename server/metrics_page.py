"""The metrics page of the supervisor: ``/metrics`` over all processes and ``/healthz``.

A few lines of HTTP on the supervisor's own loop. No thread may exist there, because PostgreSQL is forked from
it; and no request can hold it up: one short request per connection, within a fixed time.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from server.errors import ConfigurationError

log = logging.getLogger(__name__)

REQUEST_TIME_MAX_S = 5.0
REQUEST_BYTES_MAX = 16 << 10
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


def prepare_directory(directory: Path) -> None:
    """An empty directory for this run's metric files: counters of an earlier run must not be added in."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink()


def forget_process(directory: Path, pid: int) -> None:
    """Takes a dead process out of the live gauges; its counters stay in the sums."""
    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


class _ProcessCollector(Collector):
    """The supervisor's own figures."""

    def __init__(self, alive: Callable[[], dict[str, int]], restarts: Callable[[], dict[str, int]]) -> None:
        self._alive = alive
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        gauge = GaugeMetricFamily("onecard_processes", "Processes that serve, by kind.", labels=["kind"])
        for kind, count in self._alive().items():
            gauge.add_metric([kind], count)
        yield gauge
        counter = CounterMetricFamily("onecard_process_restarts", "Processes started again.", labels=["kind"])
        for kind, count in self._restarts().items():
            counter.add_metric([kind], count)
        yield counter


class MetricsPage:
    """Serves the page until closed.

    Args:
        directory: where the processes write their metric files.
        alive: processes that serve now, by kind.
        restarts: processes started again so far, by kind.
        missing: the kinds that should serve and do not; empty when healthy.
    """

    def __init__(
        self,
        directory: Path,
        *,
        alive: Callable[[], dict[str, int]],
        restarts: Callable[[], dict[str, int]],
        missing: Callable[[], list[str]],
    ) -> None:
        self._registry = CollectorRegistry()
        MultiProcessCollector(self._registry, str(directory))  # type: ignore[no-untyped-call]
        self._registry.register(_ProcessCollector(alive, restarts))
        self._missing = missing
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listens and returns the port.

        Raises:
            ConfigurationError: the port is taken.
        """
        try:
            self._server = await asyncio.start_server(self._answer, host, port, limit=REQUEST_BYTES_MAX)
        except OSError as error:
            raise ConfigurationError(
                f"metrics port {port} on {host} cannot be opened: {os.strerror(error.errno or 0)}"
            ) from None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIME_MAX_S):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._response(request))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("metrics request not answered")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _response(self, request: bytes) -> bytes:
        words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        path = words[1].split("?")[0] if len(words) == 3 else ""
        if words[0] not in ("GET", "HEAD"):
            status, kind, body = "405 Method Not Allowed", TEXT_FORMAT, b"GET only\n"
        elif path == "/metrics":
            status, kind, body = "200 OK", TEXT_FORMAT, generate_latest(self._registry)
        elif path == "/healthz":
            missing = self._missing()
            status = "503 Service Unavailable" if missing else "200 OK"
            kind, body = "application/json", json.dumps({"serving": not missing, "missing": missing}).encode()
        else:
            status, kind, body = "404 Not Found", TEXT_FORMAT, b"/metrics or /healthz\n"
        fields = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
        head = "\r\n".join((*fields, "Connection: close", "", ""))
        return head.encode() + (b"" if words[0] == "HEAD" else body)
