"""The mix of a scene, and when its operations arrive."""

from collections import Counter

import pytest

from loadtests.arrivals import plan_arrivals, split_count
from loadtests.operations import POSSIBLE
from loadtests.scene import ordinary_peak_minute
from loadtests.traffic import load_traffic


def test_model_sums_up_to_its_totals() -> None:
    traffic = load_traffic()
    assert sum(operation.peak_minute for operation in traffic) == 1_879
    assert sum(operation.peak_hour for operation in traffic) == 1_198
    assert sum(operation.mean for operation in traffic) == pytest.approx(199.3)


def test_every_operation_of_the_model_is_sent_or_named_as_left_out() -> None:
    scene = ordinary_peak_minute(POSSIBLE)
    assert {*scene.rates, *scene.left_out} == {operation.name for operation in load_traffic()}
    assert set(scene.rates) == POSSIBLE
    assert scene.model_rate == 1_879


def test_shares_of_what_is_sent_add_up_to_one() -> None:
    scene = ordinary_peak_minute(POSSIBLE)
    assert sum(scene.shares.values()) == pytest.approx(1)
    assert scene.shares["financial"] == pytest.approx(354 / scene.full_rate)


def test_left_out_shares_are_of_the_whole_model() -> None:
    scene = ordinary_peak_minute({"financial"})
    assert sum(scene.left_out_shares.values()) == pytest.approx((1_879 - 354) / 1_879)


@pytest.mark.parametrize("count", [0, 1, 7, 900, 60_001])
def test_split_gives_every_operation_its_share_and_loses_none(count: int) -> None:
    shares = ordinary_peak_minute(POSSIBLE).shares
    parts = split_count(count, shares)
    assert sum(parts.values()) == count
    assert all(abs(part - count * shares[name]) < 1 for name, part in parts.items())


def test_arrivals_have_the_asked_rate_and_order() -> None:
    arrivals = plan_arrivals({"a": 0.75, "b": 0.25}, rate_per_s=200, warmup_s=2, seconds=10, seed=1)
    measured = [arrival for arrival in arrivals if arrival.measured]
    assert len(measured) == 2_000
    assert len(arrivals) == 2_400
    assert Counter(arrival.operation for arrival in measured) == {"a": 1_500, "b": 500}
    times = [arrival.at_s for arrival in arrivals]
    assert times == sorted(times)
    assert all(arrival.measured == (arrival.at_s >= 2) for arrival in arrivals)
    assert times[-1] <= 12


def test_arrivals_come_independently_of_each_other() -> None:
    arrivals = plan_arrivals({"a": 1.0}, rate_per_s=100, warmup_s=0, seconds=100, seed=7)
    per_second = Counter(int(arrival.at_s) for arrival in arrivals)
    mean = sum(per_second.values()) / 100
    variance = sum((count - mean) ** 2 for count in per_second.values()) / 100
    # Of a Poisson process they are equal; evenly spaced arrivals would have none.
    assert 0.5 < variance / mean < 1.7


def test_seeds_give_different_plans_and_the_same_again() -> None:
    plans = [plan_arrivals({"a": 1.0}, rate_per_s=10, warmup_s=0, seconds=1, seed=seed) for seed in (1, 2, 1)]
    assert plans[0] == plans[2] != plans[1]
