"""One suite's figures, in the shape of the result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from benchmarks.cpu_accounting import CpuUse
from benchmarks.generator_process import LoadRun

# A rate over less of its time than this says more about the beginning than about the rate.
MEASURED_SHARE_MIN: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class SuiteSettings:
    """What the command line asked for; the same for every suite of a run."""

    seconds: float
    warmup_s: float
    workers: int
    connections: int
    in_flight: int
    """Unary calls in flight per connection."""
    frame: int
    """Operations per frame."""
    frames_in_flight: int
    """Frames in flight per stream."""
    cards: int
    cards_large: int
    """Of the second core, for suite ``cards``."""
    soak_s: float
    soak_rate_per_s: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """Figures of one suite in one repeat."""

    suite: str
    unit: str
    """What the rate counts."""
    rate_per_s: float
    seconds: float
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """p50, p99 and p99.9 of a call, or of a frame."""
    answered: int = 0
    approved: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    declines: Mapping[str, int] = field(default_factory=dict)
    cpu: Mapping[str, CpuUse] = field(default_factory=dict)
    worker_us_per_operation: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    """Why the figure must not be used; empty when it may."""

    def with_failures(self, found: Sequence[str]) -> SuiteResult:
        """The same figures with more reasons not to use them."""
        return replace(self, failures=(*self.failures, *found))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def from_load(
    suite: str, run: LoadRun, *, asked_s: float, unit: str, facts: Mapping[str, Any]
) -> SuiteResult:
    """Turns a run of the generator into a suite's figures.

    Args:
        suite: its name.
        run: what was seen.
        asked_s: how long the clock should have run; prepared operations may end before.
        unit: what the rate counts.
        facts: what else belongs into the result file.
    """
    result = run.result
    errors = dict(result.whole.errors)
    if result.unanswered:
        errors["unanswered"] = result.unanswered
    failures = []
    if errors:
        failures.append(f"{run.errors} operations without an outcome")
    if result.seconds < asked_s * MEASURED_SHARE_MIN:
        failures.append(
            f"only {result.seconds:.1f} s of {asked_s:.1f} s were measured: prepare more operations"
        )
    return SuiteResult(
        suite=suite,
        unit=unit,
        rate_per_s=run.rate_per_s,
        seconds=result.seconds,
        latency_ms={
            "p50": result.measured.latencies.percentile_ms(50),
            "p99": result.measured.latencies.percentile_ms(99),
            "p99.9": result.measured.latencies.percentile_ms(99.9),
        },
        answered=result.measured.answered,
        approved=result.measured.approved,
        errors=errors,
        declines=dict(result.whole.declines),
        cpu=run.cpu,
        worker_us_per_operation=run.worker_us_per_operation(),
        facts={
            **facts,
            "prepared_operations_used_up": result.exhausted,
            "connections_per_worker": sorted(result.connections_per_worker.values()),
            "generator_us_per_operation": result.cpu_s * 1e6 / max(1, result.measured.answered),
            "answered_in_whole": result.whole.answered,
            "approved_in_whole": result.whole.approved,
        },
        failures=tuple(failures),
    )
