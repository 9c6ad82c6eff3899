"""Percentiles must be right to the promised width of a bucket."""

import random

import pytest

from benchmarks.histogram import LatencyHistogram


def test_small_latencies_are_exact() -> None:
    histogram = LatencyHistogram()
    for latency_us in range(1, 101):
        histogram.record(latency_us)
    assert histogram.count == 100
    assert histogram.percentile_ms(50) == 0.050
    assert histogram.percentile_ms(99) == 0.099
    assert histogram.percentile_ms(100) == 0.100


@pytest.mark.parametrize("percent", [1, 50, 99, 99.9, 100])
def test_percentiles_agree_with_a_sorted_list(percent: float) -> None:
    rng = random.Random(7)
    latencies = sorted(int(rng.lognormvariate(9, 1.5)) for _ in range(20_000))
    histogram = LatencyHistogram()
    for latency_us in latencies:
        histogram.record(latency_us)
    rank = max(1, -(-len(latencies) * percent // 100))
    expected_us = latencies[int(rank) - 1]
    assert histogram.percentile_ms(percent) * 1000 == pytest.approx(expected_us, rel=1 / 256)


def test_merged_histograms_count_both() -> None:
    left, right = LatencyHistogram({10: 2}), LatencyHistogram({10: 1, 20: 1})
    left.merge([right])
    assert left.buckets == {10: 3, 20: 1}


def test_nothing_recorded_is_zero() -> None:
    assert LatencyHistogram().percentile_ms(99) == 0


def test_a_clock_that_stood_still_is_zero() -> None:
    histogram = LatencyHistogram()
    histogram.record(-1)
    assert histogram.buckets == {0: 1}
