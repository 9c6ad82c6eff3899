"""Puts the suites side by side: medians over the repeats, ratios, and the result file.

Ratios are taken within one repeat and then the median of them: what both suites of a repeat suffered
from the machine cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.suite_result import SuiteResult

Repeat = Mapping[str, SuiteResult]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of a figure."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def rates(repeats: Sequence[Repeat]) -> dict[str, dict[str, float]]:
    """Suite → rate per second over the repeats."""
    by_suite: dict[str, list[float]] = {}
    for repeat in repeats:
        for name, result in repeat.items():
            by_suite.setdefault(name, []).append(result.rate_per_s)
    return {name: spread(values) for name, values in by_suite.items()}


def ratios(repeats: Sequence[Repeat]) -> dict[str, dict[str, float]]:
    """The ratios that the project is judged by, for the suites that ran in the same repeat."""
    wanted: dict[str, tuple[str, str, Callable[[SuiteResult, SuiteResult], float | None]]] = {
        "unary/echo, saturated rate": ("unary", "echo", _rate_ratio),
        "unary/echo, worker CPU per call": ("unary", "echo", _worker_cpu_ratio),
        "frames/pgbench, rate": ("frames", "pgbench", _rate_ratio),
    }
    found = {}
    for name, (upper, lower, ratio) in wanted.items():
        pairs = [ratio(repeat[upper], repeat[lower]) for repeat in repeats if {upper, lower} <= set(repeat)]
        values = [value for value in pairs if value is not None]
        if values:
            found[name] = spread(values)
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
        "ratios": ratios(repeats),
        "failures": failures(repeats),
        "repeats": [{name: result.to_json() for name, result in repeat.items()} for repeat in repeats],
    }


def _rate_ratio(upper: SuiteResult, lower: SuiteResult) -> float | None:
    return upper.rate_per_s / lower.rate_per_s if lower.rate_per_s else None


def _worker_cpu_ratio(upper: SuiteResult, lower: SuiteResult) -> float | None:
    if not upper.worker_us_per_operation or not lower.worker_us_per_operation:
        return None
    return upper.worker_us_per_operation / lower.worker_us_per_operation
