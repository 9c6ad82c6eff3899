"""Memory of the core's processes over time, and whether it stays flat.

Counted as PSS: pages that several processes share are divided among them, so that groups add up. Of PostgreSQL the
shared buffers are left out: they fill up to what was configured and say nothing about the program.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.cpu_accounting import tree_pids

INTERVAL_S: Final = 5.0
# Growth below the larger of the two is the noise of allocators and caches. A leak of eight bytes for each of 1,500
# calls a second is 0.7 MiB a minute.
FLAT_SHARE_PER_MIN_MAX: Final = 0.005
FLAT_BYTES_PER_MIN_MAX: Final = 256 << 10
_MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a process or a group, shared memory (buffers of PostgreSQL) included."""

    rss: int = 0
    pss: int = 0
    pss_shared: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            rss=self.rss + other.rss,
            pss=self.pss + other.pss,
            pss_shared=self.pss_shared + other.pss_shared,
        )

    @property
    def own(self) -> int:
        """Bytes without shared memory: what is judged."""
        return self.pss - self.pss_shared


@dataclass(frozen=True, kw_only=True)
class Trend:
    """How a group's own memory went.

    Args:
        first: bytes of the first sample.
        last: of the last one.
        bytes_per_min: slope from the third quarter to the last, when caches have filled.
        flat: whether that slope is no more than noise.
    """

    first: int
    last: int
    bytes_per_min: float
    flat: bool


def parse_smaps_rollup(text: str) -> Memory:
    """Reads /proc/<pid>/smaps_rollup. Source: proc_pid_smaps(5)."""
    sizes = {}
    # The first line is a range of addresses.
    for line in text.splitlines()[1:]:
        name, _, size = line.partition(":")
        sizes[name] = int(size.split()[0]) << 10
    # A process that has ended and was not waited for has an empty file.
    return Memory(rss=sizes.get("Rss", 0), pss=sizes.get("Pss", 0), pss_shared=sizes.get("Pss_Shmem", 0))


def process_memory(pid: int) -> Memory:
    """Of one process; nothing when it is gone."""
    try:
        return parse_smaps_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return Memory()


def trend(samples: Sequence[tuple[float, int]]) -> Trend:
    """Judges the later half of the samples.

    Args:
        samples: seconds and bytes, in order of time; at least one.
    """
    later = samples[len(samples) // 2 :]
    third, last = later[: len(later) // 2], later[len(later) // 2 :]
    slope = 0.0
    if third:
        # Medians: a process of autovacuum that comes for some seconds is no growth.
        minutes = (median(at_s for at_s, _ in last) - median(at_s for at_s, _ in third)) / 60
        slope = (median(size for _, size in last) - median(size for _, size in third)) / minutes
    allowed = max(FLAT_BYTES_PER_MIN_MAX, FLAT_SHARE_PER_MIN_MAX * median(size for _, size in later))
    return Trend(first=samples[0][1], last=samples[-1][1], bytes_per_min=slope, flat=slope <= allowed)


@dataclass
class MemoryWatch:
    """Samples groups of processes from a thread of its own while it is entered.

    Args:
        processes: group → pids.
        trees: group → root pid, counted with everything below it.
    """

    processes: Mapping[str, Sequence[int]]
    trees: Mapping[str, int]
    samples: dict[str, list[tuple[float, Memory]]] = field(default_factory=dict)
    """Group → seconds since the start, and memory."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        assert self._thread is not None, "it was entered"
        self._thread.join()

    def facts(self) -> dict[str, Any]:
        """Group → trend in MiB, and every sample."""
        return {group: self._group_facts(samples) for group, samples in self.samples.items()}

    def _group_facts(self, samples: Sequence[tuple[float, Memory]]) -> dict[str, Any]:
        found = trend([(at_s, memory.own) for at_s, memory in samples])
        return {
            "first_mib": found.first / _MIB,
            "last_mib": found.last / _MIB,
            "slope_mib_per_min": found.bytes_per_min / _MIB,
            "flat": found.flat,
            "seconds": [round(at_s, 1) for at_s, _ in samples],
            "pss_without_shared_mib": [round(memory.own / _MIB, 2) for _, memory in samples],
            "rss_mib": [round(memory.rss / _MIB, 2) for _, memory in samples],
        }

    def _watch(self) -> None:
        started_s = time.monotonic()
        while True:
            at_s = time.monotonic() - started_s
            for group, pids in self._pids().items():
                memory = sum(map(process_memory, pids), Memory())
                self.samples.setdefault(group, []).append((at_s, memory))
            if self._ended.wait(INTERVAL_S):
                return

    def _pids(self) -> dict[str, Sequence[int]]:
        return {**self.processes, **{group: tree_pids(root) for group, root in self.trees.items()}}
