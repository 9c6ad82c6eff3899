"""Puts the suites side by side: medians over the repeats, ratios, and the result file.

Ratios are taken within one repeat and then the median of them: what both suites of a repeat suffered
from the machine cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Final

from benchmarks.suite_result import SuiteResult

Repeat = Mapping[str, SuiteResult]
Figure = Callable[[SuiteResult], float | None]


def _rate(result: SuiteResult) -> float:
    return result.rate_per_s


def _worker_cpu(result: SuiteResult) -> float | None:
    return result.worker_us_per_operation


def _percentile(name: str) -> Figure:
    return lambda result: result.latency_ms.get(name)


# The suite whose figure stands above, the one below, and what is compared.
RATIOS: Final[tuple[tuple[str, str, str, Figure], ...]] = (
    ("unary", "echo", "saturated rate", _rate),
    ("unary", "echo", "worker CPU per call", _worker_cpu),
    ("idle", "echo-idle", "p50", _percentile("p50")),
    ("half-load", "unary", "p99", _percentile("p99")),
    ("frames-16", "pgbench", "rate", _rate),
    ("frames-64", "pgbench", "rate", _rate),
    ("frames", "pgbench", "rate", _rate),
    ("frames-512", "pgbench", "rate", _rate),
    ("hot", "frames", "rate", _rate),
    ("declines", "frames", "rate", _rate),
    ("declines", "frames", "worker CPU per operation", _worker_cpu),
    ("cards", "frames", "rate", _rate),
    ("cards", "frames", "worker CPU per operation", _worker_cpu),
)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of a figure."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def rates(repeats: Sequence[Repeat]) -> dict[str, dict[str, float]]:
    """Suite → rate per second over the repeats."""
    return {
        name: spread([result.rate_per_s for result in results])
        for name, results in _by_suite(repeats).items()
    }


def latencies(repeats: Sequence[Repeat]) -> dict[str, dict[str, dict[str, float]]]:
    """Suite → percentile → ms over the repeats."""
    return {
        name: {
            percentile: spread([result.latency_ms[percentile] for result in results])
            for percentile in results[0].latency_ms
        }
        for name, results in _by_suite(repeats).items()
    }


def ratios(repeats: Sequence[Repeat]) -> dict[str, dict[str, float]]:
    """The ratios that the project is judged by, for the suites that ran in the same repeat."""
    found = {}
    for upper, lower, what, figure in RATIOS:
        pairs = [(repeat[upper], repeat[lower]) for repeat in repeats if {upper, lower} <= set(repeat)]
        values = [(figure(above), figure(below)) for above, below in pairs]
        usable = [above / below for above, below in values if above and below]
        if usable:
            found[f"{upper}/{lower}, {what}"] = spread(usable)
    return found


def failures(repeats: Sequence[Repeat]) -> list[str]:
    """Every reason not to use a figure, by suite and repeat."""
    return [
        f"{name}, repeat {number}: {failure}"
        for number, repeat in enumerate(repeats, start=1)
        for name, result in repeat.items()
        for failure in result.failures
    ]


def result_file(repeats: Sequence[Repeat], *, context: Mapping[str, Any]) -> dict[str, Any]:
    """The whole run as plain values.

    Args:
        repeats: in the order they ran.
        context: machine, versions, commit, command and settings.
    """
    return {
        **context,
        "rates_per_s": rates(repeats),
        "latencies_ms": latencies(repeats),
        "ratios": ratios(repeats),
        "failures": failures(repeats),
        "repeats": [{name: result.to_json() for name, result in repeat.items()} for repeat in repeats],
    }


def _by_suite(repeats: Sequence[Repeat]) -> dict[str, list[SuiteResult]]:
    found: dict[str, list[SuiteResult]] = {}
    for repeat in repeats:
        for name, result in repeat.items():
            found.setdefault(name, []).append(result)
    return found
