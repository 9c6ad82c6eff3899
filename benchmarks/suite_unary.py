"""Suites of single calls: as many as the core answers, one at a time, at half of what it can, and for a long time."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from benchmarks.memory_watch import MemoryWatch
from benchmarks.operations import Mix
from benchmarks.suite_core import CoreBench, Load
from benchmarks.suite_result import SuiteResult, SuiteSettings

# One caller is answered some hundred times a second.
_IDLE_PREPARED_PER_S: Final = 4_000
# An open loop may have many calls open when the core stalls; the core itself refuses beyond a number of its own.
_OPEN_CALLS_MAX: Final = 10_000
# Calls that fall due and answers that came wait so long for the generator's next look.
_OPEN_LOOP_TURN_US: Final = 500
# Below that, the core has not kept up with the rate, and latencies only tell how long the run was.
_KEPT_UP_SHARE_MIN: Final = 0.95
_SOAK_CARDS_MAX: Final = 20_000
# A worker meets each card so often in the first half that its cache holds all but a thousandth of them (e^-7) when the
# later half begins, which is judged.
_SOAK_MEETINGS: Final = 7


def run_unary(bench: CoreBench) -> SuiteResult:
    """Closed loop: one purchase per call, as many calls as the core answers."""
    settings = bench.settings
    return bench.run(
        Load(suite="unary", kind="unary", connections=settings.connections, in_flight=settings.in_flight)
    )


def run_idle(bench: CoreBench) -> SuiteResult:
    """One caller with one call in flight on an idle core: how long a purchase takes by itself."""
    return bench.run(
        Load(
            suite="idle",
            kind="unary",
            connections=1,
            in_flight=1,
            turn_us_min=0,
            prepared_per_s=_IDLE_PREPARED_PER_S,
        )
    )


def run_half_load(bench: CoreBench) -> SuiteResult:
    """Calls at half of the rate that ``unary`` reached in the same repeat, at random times."""
    saturated_per_s = bench.rates["unary"][-1]
    load = open_loop("half-load", bench.settings, rate_per_s=saturated_per_s / 2)
    return check_kept_up(bench.run(load), asked_per_s=saturated_per_s / 2)


def run_soak(bench: CoreBench) -> SuiteResult:
    """Calls at a moderate rate for a long time, and the memory of every process of the core meanwhile."""
    settings, core = bench.settings, bench.core
    load = replace(
        open_loop("soak", settings, rate_per_s=settings.soak_rate_per_s),
        seconds=settings.soak_s,
        mix=Mix(cards_max=soak_cards(settings)),
    )
    workers = {f"worker {number}": (pid,) for number, pid in enumerate(core.worker_pids, start=1)}
    groups = workers | {group: pids for group, pids in core.processes.items() if group != "workers"}
    watch = MemoryWatch(groups, core.trees)
    result = check_kept_up(bench.run(load, beside=watch), asked_per_s=settings.soak_rate_per_s)
    unread = [group for group in (*groups, *core.trees) if group not in watch.samples]
    result = result.with_failures([f"the memory of {group} could not be read" for group in unread])
    return replace(result, facts={**result.facts, "memory": watch.facts()})


def soak_cards(settings: SuiteSettings) -> int:
    """How many cards make purchases: a cache that still fills would look like a leak."""
    calls_of_a_worker = settings.soak_rate_per_s * settings.soak_s / settings.workers
    return max(1, min(_SOAK_CARDS_MAX, int(calls_of_a_worker / 2 / _SOAK_MEETINGS)))


def open_loop(suite: str, settings: SuiteSettings, *, rate_per_s: float) -> Load:
    """Single purchases at random times of a mean rate, whatever the core does."""
    return Load(
        suite=suite,
        kind="unary",
        connections=settings.connections,
        in_flight=_OPEN_CALLS_MAX,
        rate_per_s=rate_per_s,
        turn_us_min=_OPEN_LOOP_TURN_US,
    )


def check_kept_up(result: SuiteResult, *, asked_per_s: float) -> SuiteResult:
    """The figures, marked unusable when the core was slower than calls came."""
    if result.rate_per_s >= asked_per_s * _KEPT_UP_SHARE_MIN:
        return result
    return result.with_failures(
        [f"{result.rate_per_s:.0f} of {asked_per_s:.0f} calls a second were answered"]
    )
