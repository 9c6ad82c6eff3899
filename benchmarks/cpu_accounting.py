"""CPU time by process group, so that the generator's, the workers' and PostgreSQL's are never mixed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Stat:
    """The clocks of one process, in ticks. Source: proc_pid_stat(5)."""

    parent_pid: int
    own_ticks: int
    ended_children_ticks: int


def parse_stat(text: str) -> _Stat:
    """Reads /proc/<pid>/stat; the command name may hold spaces and brackets, so the last one counts."""
    fields = text.rpartition(")")[2].split()
    own, ended = fields[11:13], fields[13:15]
    return _Stat(int(fields[1]), sum(map(int, own)), sum(map(int, ended)))


def process_cpu_s(pid: int) -> float:
    """CPU seconds of one process so far, without its children; 0 when it is gone."""
    stat = _read(pid)
    return stat.own_ticks / _TICKS_PER_S if stat else 0.0


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and all below it, those that have ended and were waited for included."""
    ticks = sum(stat.own_ticks + stat.ended_children_ticks for stat in _tree(pid).values())
    return ticks / _TICKS_PER_S


def tree_pids(pid: int) -> list[int]:
    """A process and all below it; empty when it is gone."""
    return list(_tree(pid))


def _tree(pid: int) -> dict[int, _Stat]:
    found = {int(entry): _read(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()}
    stats = {child: stat for child, stat in found.items() if stat}
    tree, open_pids = {}, [pid]
    while open_pids:
        parent = open_pids.pop()
        if parent in stats:
            tree[parent] = stats[parent]
        open_pids += [child for child, stat in stats.items() if stat.parent_pid == parent]
    return tree


def _read(pid: int) -> _Stat | None:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


@dataclass(frozen=True)
class CpuUse:
    """CPU seconds of one group within a measured time, and their share of the whole machine."""

    seconds: float
    machine_share: float


@dataclass(frozen=True)
class CpuSample:
    """Readings of all groups at one moment."""

    at_s: float
    seconds_by_group: Mapping[str, float]

    @classmethod
    def take(cls, *, processes: Mapping[str, Sequence[int]], trees: Mapping[str, int]) -> Self:
        """Reads the clocks.

        Args:
            processes: group → pids, each counted without its children.
            trees: group → root pid, counted with everything below it.
        """
        seconds = {group: sum(map(process_cpu_s, pids)) for group, pids in processes.items()}
        seconds |= {group: tree_cpu_s(pid) for group, pid in trees.items()}
        return cls(time.monotonic(), seconds)

    def since(self, earlier: CpuSample) -> dict[str, CpuUse]:
        """What each group used since an earlier sample."""
        machine_s = (self.at_s - earlier.at_s) * cores()
        uses = {}
        for group, seconds in self.seconds_by_group.items():
            used_s = seconds - earlier.seconds_by_group[group]
            uses[group] = CpuUse(used_s, used_s / machine_s if machine_s else 0.0)
        return uses


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
