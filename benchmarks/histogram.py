"""Latencies in buckets of constant relative width, so that a million of them cost a dictionary of counts.

Each bucket is at most 1/256 of its value wide: a percentile read from it is wrong by less than 0.4 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

_PRECISION_BITS: Final = 8


class LatencyHistogram:
    """Counts latencies; merges with others; tells percentiles."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        """Starts empty, or from the buckets another process has counted."""
        self._counts: Counter[int] = Counter(counts or {})

    def record(self, latency_us: int) -> None:
        """Counts one latency in whole microseconds; negative ones are counted as zero."""
        latency_us = max(latency_us, 0)
        shift = latency_us.bit_length() - _PRECISION_BITS - 1
        shift = max(shift, 0)
        # The bucket is named by its lower bound: merging and reading need no table of bounds.
        self._counts[latency_us >> shift << shift] += 1

    @property
    def count(self) -> int:
        """How many latencies were recorded."""
        return self._counts.total()

    @property
    def buckets(self) -> dict[int, int]:
        """Lower bound in µs → how many."""
        return dict(self._counts)

    def merge(self, others: Iterable[LatencyHistogram]) -> None:
        """Adds what others have counted."""
        for other in others:
            self._counts.update(other._counts)

    def percentile_ms(self, percent: float) -> float:
        """The latency that ``percent`` of all calls did not exceed, in ms; 0 when nothing was recorded.

        Args:
            percent: above 0, at most 100.
        """
        assert 0 < percent <= 100, "a percentile lies within (0, 100]"
        rank = self.count * percent / 100
        seen = 0
        for bound_us in sorted(self._counts):
            seen += self._counts[bound_us]
            if seen >= rank:
                return bound_us / 1000
        return 0.0
