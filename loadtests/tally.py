"""What a run has counted, by operation: answers, declines and failures apart, and latencies from the intended start."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from benchmarks.histogram import LatencyHistogram


@dataclass
class OperationTally:
    """Counts of one operation within the measured time."""

    attempted: int = 0
    """Arrivals that were planned; each is answered or failed in the end."""
    answered: int = 0
    """Answers, declines included."""
    declines: Counter[str] = field(default_factory=Counter)
    """Answers that said no, by response code and reason."""
    failures: Counter[str] = field(default_factory=Counter)
    """Operations without an answer, by status and reason."""
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    """Of answers, from the intended start: time spent waiting for a greenlet counts."""

    def add(self, other: OperationTally) -> None:
        """Adds what another generator has counted."""
        self.attempted += other.attempted
        self.answered += other.answered
        self.declines.update(other.declines)
        self.failures.update(other.failures)
        self.latencies.merge([other.latencies])


@dataclass
class SceneTally:
    """Counts of one generator, or of all of them."""

    operations: defaultdict[str, OperationTally] = field(
        default_factory=lambda: defaultdict[str, OperationTally](OperationTally)
    )
    starts_late: LatencyHistogram = field(default_factory=LatencyHistogram)
    """How long after its intended time each operation began: no caller was free, or the generator had no CPU."""
    warmup_failures: int = 0
    """Failures before the measured time; they spoil a run as well."""
    measured_s: float = 0.0
    """From the end of the warm-up to the end of the plan, or to the last answer if that came later."""
    cpu_s: float = 0.0
    """CPU of the generators in the whole run."""

    def record(
        self,
        operation: str,
        *,
        measured: bool,
        latency_s: float,
        late_s: float,
        decline: str,
        failure: str,
    ) -> None:
        """Counts one operation that ended."""
        if not measured:
            self.warmup_failures += bool(failure)
            return
        tally = self.operations[operation]
        self.starts_late.record(round(late_s * 1e6))
        if failure:
            tally.failures[failure] += 1
            return
        tally.answered += 1
        tally.latencies.record(round(latency_s * 1e6))
        if decline:
            tally.declines[decline] += 1

    def add(self, other: SceneTally) -> None:
        """Adds another generator of the same run."""
        for name, tally in other.operations.items():
            self.operations[name].add(tally)
        self.starts_late.merge([other.starts_late])
        self.warmup_failures += other.warmup_failures
        self.measured_s = max(self.measured_s, other.measured_s)
        self.cpu_s += other.cpu_s

    @property
    def total(self) -> OperationTally:
        """All operations together."""
        total = OperationTally()
        for tally in self.operations.values():
            total.add(tally)
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain values for the pipe between processes."""
        return {
            "operations": {
                name: {
                    "attempted": tally.attempted,
                    "answered": tally.answered,
                    "declines": tally.declines,
                    "failures": tally.failures,
                    "latencies": list(tally.latencies.buckets.items()),
                }
                for name, tally in self.operations.items()
            },
            "starts_late": list(self.starts_late.buckets.items()),
            "warmup_failures": self.warmup_failures,
            "measured_s": self.measured_s,
            "cpu_s": self.cpu_s,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> SceneTally:
        """From the values of :meth:`to_json`."""
        tally = cls(
            starts_late=LatencyHistogram(dict(values["starts_late"])),
            warmup_failures=values["warmup_failures"],
            measured_s=values["measured_s"],
            cpu_s=values["cpu_s"],
        )
        for name, counts in values["operations"].items():
            tally.operations[name] = OperationTally(
                attempted=counts["attempted"],
                answered=counts["answered"],
                declines=Counter(counts["declines"]),
                failures=Counter(counts["failures"]),
                latencies=LatencyHistogram(dict(counts["latencies"])),
            )
        return tally
