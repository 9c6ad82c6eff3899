"""What a card has used of its limits survives its column, its day and its month, and never counts below nothing."""

from datetime import date, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.authorization.usage import EPOCH, Usage, day_number
from server.rulebook.rules import Channel

DAY = date(2026, 11, 24)
NEXT_DAY, NEXT_MONTH = DAY + timedelta(days=1), date(2026, 12, 1)
CHIP, TAP = Channel.CHIP, Channel.TAP
dates = st.dates(min_value=date(2020, 1, 1), max_value=date(2100, 1, 1))
additions = st.lists(
    st.tuples(st.sampled_from(Channel), st.integers(0, 999_999_999_999), st.integers(0, 2**32 - 1)),
    max_size=20,
)


def used(*amounts: int, on: date = DAY, channel: Channel = CHIP, now_s: int = 1_000) -> Usage:
    usage = Usage(b"", on)
    for amount in amounts:
        usage.add(channel, amount, now_s=now_s, window_s=60)
    return usage


def facts(usage: Usage) -> dict[Channel, Any]:
    return {channel: usage.of(channel) for channel in Channel}


def test_nothing_was_used_of_an_empty_column() -> None:
    usage = Usage(b"", DAY)
    assert set(facts(usage).values()) == {(0, 0, 0, 0)}
    assert (usage.day_amount_minor, usage.in_window(CHIP, now_s=0, window_s=60)) == (0, 0)


def test_packed_form_is_that_of_the_module() -> None:
    packed = used(100, 200).pack()
    assert packed == (
        day_number(DAY).to_bytes(2)
        + b"\x01"
        + (2).to_bytes(2) * 2
        + (300).to_bytes(8) * 2
        + (1_000).to_bytes(4)
        + b"\x02"
    )
    assert day_number(EPOCH) == 0


@given(dates, additions)
def test_packing_and_unpacking_changes_nothing(day: date, added: list[tuple[Channel, int, int]]) -> None:
    usage = Usage(b"", day)
    sums: dict[Channel, list[int]] = {}
    for channel, amount, now_s in added:
        usage.add(channel, amount, now_s=now_s, window_s=60)
        total = sums.setdefault(channel, [0, 0])
        total[0] += 1
        total[1] += amount
    packed = usage.pack()
    again = Usage(packed, day)
    assert again.pack() == packed
    assert len(packed) == 2 + 26 * len(sums)
    for channel in Channel:
        count, amount = sums.get(channel, [0, 0])
        assert again.of(channel) == usage.of(channel) == (count, count, amount, amount)
        for now_s in (0, 1_000, 2**32 - 1):
            counted = usage.in_window(channel, now_s=now_s, window_s=60)
            assert again.in_window(channel, now_s=now_s, window_s=60) == counted
    assert again.day_amount_minor == sum(amount for _, amount in sums.values())


@given(dates, st.integers(-400, 400), additions)
def test_of_another_day_only_the_same_month_counts(
    day: date, days: int, added: list[tuple[Channel, int, int]]
) -> None:
    usage = Usage(b"", day)
    for channel, amount, now_s in added:
        usage.add(channel, amount, now_s=now_s, window_s=60)
    other = day + timedelta(days=days)
    later = Usage(usage.pack(), other)
    for channel in Channel:
        count, _, amount, _ = usage.of(channel)
        if days <= 0:
            # A worker before the cut-off counts to the later date.
            assert later.of(channel) == usage.of(channel)
        elif (other.year, other.month) == (day.year, day.month):
            assert later.of(channel) == (0, count, 0, amount)
        else:
            assert later.of(channel) == (0, 0, 0, 0)


def test_earlier_business_date_does_not_turn_the_day_back() -> None:
    packed = used(100, on=NEXT_DAY).pack()
    usage = Usage(packed, DAY)
    usage.add(CHIP, 50, now_s=1_000, window_s=60)
    assert Usage(usage.pack(), NEXT_DAY).of(CHIP) == (2, 2, 150, 150)


def test_first_day_of_a_month_forgets_the_last_one_and_a_year_later_is_another_month() -> None:
    packed = used(100).pack()
    assert Usage(packed, NEXT_MONTH).of(CHIP) == (0, 0, 0, 0)
    assert Usage(packed, DAY.replace(year=2027)).of(CHIP) == (0, 0, 0, 0)
    assert Usage(packed, DAY.replace(day=30)).of(CHIP) == (0, 1, 0, 100)


def test_channels_count_apart_and_the_day_over_all() -> None:
    usage = used(100)
    usage.add(TAP, 7, now_s=1_000, window_s=60)
    assert (usage.of(CHIP), usage.of(TAP)) == ((1, 1, 100, 100), (1, 1, 7, 7))
    assert usage.day_amount_minor == 107


def test_counts_stop_at_what_they_can_hold() -> None:
    usage = Usage(b"", DAY)
    for _ in range(65_540):
        usage.add(CHIP, 1, now_s=1_000, window_s=60)
    assert usage.of(CHIP) == (65_535, 65_535, 65_540, 65_540)
    assert usage.in_window(CHIP, now_s=1_000, window_s=60) == 255
    assert Usage(usage.pack(), DAY).of(CHIP) == usage.of(CHIP)


def test_what_is_given_back_may_be_used_again() -> None:
    usage = used(100, 50)
    usage.give_back(CHIP, 30, used_on=DAY, is_whole=False)
    assert usage.of(CHIP) == (2, 2, 120, 120)
    usage.give_back(CHIP, 70, used_on=DAY, is_whole=True)
    assert usage.of(CHIP) == (1, 1, 50, 50)


def test_what_an_earlier_day_used_is_given_back_to_the_month_only() -> None:
    usage = Usage(used(100).pack(), NEXT_DAY)
    usage.add(CHIP, 10, now_s=1_000, window_s=60)
    usage.give_back(CHIP, 100, used_on=DAY, is_whole=True)
    assert usage.of(CHIP) == (1, 1, 10, 10)


def test_what_another_month_used_is_not_given_back() -> None:
    usage = used(100, on=NEXT_MONTH)
    usage.give_back(CHIP, 100, used_on=DAY, is_whole=True)
    usage.give_back(CHIP, 100, used_on=NEXT_MONTH.replace(year=2025), is_whole=True)
    assert usage.of(CHIP) == (1, 1, 100, 100)


def test_nothing_counts_below_nothing() -> None:
    usage = used(100)
    usage.give_back(CHIP, 101, used_on=DAY, is_whole=True)
    usage.give_back(CHIP, 1, used_on=DAY, is_whole=True)
    assert usage.of(CHIP) == (0, 0, 0, 0)
    usage.give_back(TAP, 1, used_on=DAY, is_whole=True)
    assert usage.of(TAP) == (0, 0, 0, 0)


def test_velocity_window_begins_with_its_first_operation_and_ends_after_its_length() -> None:
    usage = used(1, 1, 1, now_s=1_000)
    assert usage.in_window(CHIP, now_s=1_000, window_s=60) == 3
    assert usage.in_window(CHIP, now_s=1_059, window_s=60) == 3
    assert usage.in_window(CHIP, now_s=1_060, window_s=60) == 0
    # It does not slide: operations in it do not make it longer.
    usage.add(CHIP, 1, now_s=1_059, window_s=60)
    assert usage.in_window(CHIP, now_s=1_059, window_s=60) == 4
    usage.add(CHIP, 1, now_s=1_060, window_s=60)
    assert usage.in_window(CHIP, now_s=1_119, window_s=60) == 1
    assert usage.in_window(CHIP, now_s=1_120, window_s=60) == 0


def test_velocity_window_lasts_over_the_cut_off_within_a_month() -> None:
    usage = Usage(used(1, 1, now_s=1_000).pack(), NEXT_DAY)
    assert usage.in_window(CHIP, now_s=1_010, window_s=60) == 2


def test_each_channel_has_a_velocity_window_of_its_own() -> None:
    usage = used(1, 1, now_s=1_000)
    usage.add(TAP, 1, now_s=1_005, window_s=10)
    assert usage.in_window(CHIP, now_s=1_010, window_s=60) == 2
    assert usage.in_window(TAP, now_s=1_010, window_s=60) == 1
