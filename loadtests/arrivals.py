"""When each operation of a run is to begin: fixed before the clock starts, so that a slow core is asked as often."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """One operation to come.

    Args:
        at_s: intended start, seconds after the run's.
        operation: its name.
        measured: False within the warm-up, which is checked in the books and left out of the table.
    """

    at_s: float
    operation: str
    measured: bool


def split_count(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divides ``count`` by shares that add up to 1; the largest remainders get what rounding down left over."""
    exact = {name: count * share for name, share in shares.items()}
    parts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: parts[name] - exact[name])
    for name in by_remainder[: count - sum(parts.values())]:
        parts[name] += 1
    return parts


def plan_arrivals(
    shares: Mapping[str, float], *, rate_per_s: float, warmup_s: float, seconds: float, seed: int
) -> list[Arrival]:
    """The arrivals of one generator in order of time.

    Times are drawn uniformly, which is a Poisson process of exactly the asked number: callers come independently of
    each other and therefore in clusters, but a short run still has the asked rate and mix.

    Args:
        shares: of the operations; they add up to 1.
        rate_per_s: operations per second.
        warmup_s: before the measured time, at the same rate.
        seconds: measured time.
        seed: of times and order.
    """
    rng = random.Random(seed)
    arrivals = _phase(shares, rate_per_s, begin_s=0.0, seconds=warmup_s, measured=False, rng=rng)
    arrivals += _phase(shares, rate_per_s, begin_s=warmup_s, seconds=seconds, measured=True, rng=rng)
    return arrivals


def _phase(
    shares: Mapping[str, float],
    rate_per_s: float,
    *,
    begin_s: float,
    seconds: float,
    measured: bool,
    rng: random.Random,
) -> list[Arrival]:
    parts = split_count(round(rate_per_s * seconds), shares)
    operations = [name for name, part in parts.items() for _ in range(part)]
    rng.shuffle(operations)
    times = sorted(begin_s + rng.random() * seconds for _ in operations)
    return [Arrival(at_s, operation, measured) for at_s, operation in zip(times, operations, strict=True)]
