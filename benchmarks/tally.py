"""What a generator has counted in one phase of a run: warm-up, measured time, or drain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.histogram import LatencyHistogram


@dataclass
class Tally:
    """Counts of one phase. Every answer lands in exactly one phase: the one in which it arrived."""

    answered: int = 0
    """Operations answered with status OK: approved or declined."""
    approved: int = 0
    """Operations answered with response code 00."""
    errors: Counter[str] = field(default_factory=Counter)
    """Operations without an outcome, by gRPC status or reason."""
    declines: Counter[str] = field(default_factory=Counter)
    """Declined operations by response code, where the answers were decoded."""
    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    """Per call, or per frame of operations."""

    def add(self, other: Tally) -> None:
        """Adds what another phase has counted."""
        self.answered += other.answered
        self.approved += other.approved
        self.errors.update(other.errors)
        self.declines.update(other.declines)
        self.latencies.merge([other.latencies])

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the pipe to the process that started the generator."""
        return {
            "answered": self.answered,
            "approved": self.approved,
            "errors": dict(self.errors),
            "declines": dict(self.declines),
            "latencies": list(self.latencies.buckets.items()),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Tally:
        """From the plain values of :meth:`to_json`."""
        return cls(
            answered=values["answered"],
            approved=values["approved"],
            errors=Counter(values["errors"]),
            declines=Counter(values["declines"]),
            latencies=LatencyHistogram(dict(values["latencies"])),
        )
