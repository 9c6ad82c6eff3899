"""Suite ``pgbench``: TPC-B of PostgreSQL's own tool, on the server the core uses, in a database of its own.

Prepared statements over the unix socket, the best of several client counts: the most favourable way to
change one balance per transaction, and so the yardstick for the rate of ``frames``.
"""

from __future__ import annotations

import re
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.cpu_accounting import CpuSample, CpuUse, cores
from benchmarks.suite_result import SuiteResult

DATABASE: Final = "pgbench"
SCALE: Final = 20
CLIENTS: Final = (8, 16, 32)
_TPS: Final = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
_AVERAGE: Final = re.compile(r"^latency average = ([\d.]+) ms", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)
_PROCESSED: Final = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class PgbenchTarget:
    """The server to measure and the tool to measure it with."""

    binaries: Path
    socket_dir: Path
    postmaster_pid: int
    user: str = "postgres"

    def connection_flags(self) -> list[str]:
        """Flags that all of PostgreSQL's tools share."""
        return ["-h", str(self.socket_dir), "-p", "5432", "-U", self.user]


@dataclass(frozen=True)
class PgbenchRun:
    """What one run of the tool printed, and the CPU of the tool and of PostgreSQL meanwhile."""

    clients: int
    rate_per_s: float
    latency_average_ms: float
    transactions: int
    failed: int
    cpu: dict[str, CpuUse]


def parse_output(output: str) -> tuple[float, float, int, int]:
    """Reads the tool's report: transactions per second, mean latency in ms, transactions, failed ones.

    Raises:
        ValueError: a line is missing: the run broke off.
    """
    matches = [pattern.search(output) for pattern in (_TPS, _AVERAGE, _PROCESSED, _FAILED)]
    tps, average, processed, failed = matches
    if tps is None or average is None or processed is None:
        raise ValueError("pgbench gave no result")
    return float(tps[1]), float(average[1]), int(processed[1]), int(failed[1]) if failed else 0


def _ended_children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _run_tool(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ChildProcessError(f"{Path(command[0]).name} failed: {last}")
    return done.stdout


def _execute(target: PgbenchTarget, statement: str) -> None:
    # pgbench itself runs the statement: not every set of binaries brings psql.
    script = ["-n", "-t", "1", "-f", "/dev/stdin", *target.connection_flags(), "postgres"]
    command: list[str | Path] = [target.binaries / "pgbench", *script]
    done = subprocess.run(command, input=statement + ";\n", capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildProcessError(f"{statement}: {done.stderr.strip()}")


@contextmanager
def pgbench_database(target: PgbenchTarget, *, scale: int = SCALE) -> Iterator[None]:
    """Makes and fills the database, and removes it afterwards."""
    _execute(target, f"DROP DATABASE IF EXISTS {DATABASE}")
    _execute(target, f"CREATE DATABASE {DATABASE}")
    try:
        fill = ["-i", "-q", "-s", str(scale), *target.connection_flags(), DATABASE]
        _run_tool([target.binaries / "pgbench", *fill])
        yield
    finally:
        _execute(target, f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")


def measure(target: PgbenchTarget, *, clients: int, seconds: float) -> PgbenchRun:
    """Runs TPC-B once in the filled database."""
    threads = min(clients, cores())
    flags = [
        "-n",
        "-M",
        "prepared",
        "-c",
        str(clients),
        "-j",
        str(threads),
        "-T",
        str(max(1, round(seconds))),
    ]
    _execute(target, "CHECKPOINT")
    tool_before_s = _ended_children_cpu_s()
    before = CpuSample.take(processes={}, trees={"postgresql": target.postmaster_pid})
    output = _run_tool([target.binaries / "pgbench", *flags, *target.connection_flags(), DATABASE])
    after = CpuSample.take(processes={}, trees={"postgresql": target.postmaster_pid})
    tool_s = _ended_children_cpu_s() - tool_before_s
    tool = CpuUse(tool_s, tool_s / ((after.at_s - before.at_s) * cores()))
    rate, average_ms, transactions, failed = parse_output(output)
    cpu = {"generator": tool, **after.since(before)}
    return PgbenchRun(clients, rate, average_ms, transactions, failed, cpu)


def run_pgbench(target: PgbenchTarget, *, seconds: float) -> SuiteResult:
    """Measures each client count and keeps the best.

    Args:
        target: server and tool.
        seconds: for each client count.
    """
    with pgbench_database(target):
        runs = [measure(target, clients=clients, seconds=seconds) for clients in CLIENTS]
    best = max(runs, key=lambda run: run.rate_per_s)
    failed = sum(run.failed for run in runs)
    return SuiteResult(
        suite="pgbench",
        unit="transactions",
        rate_per_s=best.rate_per_s,
        seconds=seconds,
        latency_ms={"mean": best.latency_average_ms},
        answered=best.transactions,
        errors={"failed": failed} if failed else {},
        cpu=best.cpu,
        facts={
            "scale": SCALE,
            "mode": "TPC-B, prepared",
            "best_clients": best.clients,
            "rate_per_s_by_clients": {run.clients: run.rate_per_s for run in runs},
        },
        failures=(f"{failed} transactions failed",) if failed else (),
    )
