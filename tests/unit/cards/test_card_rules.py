"""The card's one row of state: its window of transaction counters, its status, and who may use it."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cards.rules import (
    ATC_WINDOW_SIZE,
    CardStatus,
    CardUse,
    LossKind,
    advance_atc,
    card_use,
    is_expired,
    status_after_lift,
    status_after_loss,
)
from server.engine.operation import CardState

TODAY = date(2026, 11, 23)


def fresh_state() -> CardState:
    return CardState(
        shard=0,
        card_id=1,
        status=CardStatus.NORMAL,
        atc_highest=0,
        atc_window=0,
        transaction_amount_max_minor=1,
        day_amount_max_minor=1,
        pin_tries=0,
        usage=b"",
    )


class SeenCounters:
    """The model: all counters ever admitted, and the highest."""

    def __init__(self) -> None:
        self.admitted: set[int] = set()

    def admit(self, atc: int) -> bool:
        highest = max(self.admitted, default=0)
        if atc in self.admitted or atc <= highest - 64:
            return False
        self.admitted.add(atc)
        return True


def near(counters: list[int]) -> list[int]:
    """Counters around those drawn: borders of the window are met by design, not by luck."""
    return [min(65_535, max(1, c + d)) for c in counters for d in (0, 0, 1, -1, -63, -64, -65, 63, 64, 65)]


@given(st.lists(st.integers(1, 65_535), max_size=12), st.randoms(use_true_random=False))
def test_window_admits_what_a_set_of_all_counters_would(counters: list[int], random: object) -> None:
    state, model = fresh_state(), SeenCounters()
    sequence = near(counters)
    random.shuffle(sequence)  # type: ignore[attr-defined]
    for atc in sequence:
        assert advance_atc(state, atc) is model.admit(atc)
        assert state.atc_highest == max(model.admitted)
        assert -(2**63) <= state.atc_window < 2**63


@given(st.lists(st.integers(1, 200), max_size=300))
def test_dense_counters_are_admitted_once_each(counters: list[int]) -> None:
    state, model = fresh_state(), SeenCounters()
    for atc in counters:
        assert advance_atc(state, atc) is model.admit(atc)


def test_window_holds_64_counters() -> None:
    assert ATC_WINDOW_SIZE == 64
    state = fresh_state()
    assert advance_atc(state, 1_000)
    assert not advance_atc(state, 936)
    for atc in range(937, 1_000):
        assert advance_atc(state, atc)
    assert state.atc_window == -1
    for atc in range(900, 1_001):
        assert not advance_atc(state, atc)
    assert advance_atc(state, 1_001)


def test_counter_does_not_wrap_after_65535() -> None:
    state = fresh_state()
    assert advance_atc(state, 65_535)
    assert not advance_atc(state, 1)
    assert not advance_atc(state, 65_471)
    assert advance_atc(state, 65_472)


def test_refused_counter_changes_nothing() -> None:
    state = fresh_state()
    advance_atc(state, 500)
    before = (state.atc_highest, state.atc_window)
    state.changed = False
    for atc in (500, 436, 1):
        assert not advance_atc(state, atc)
    assert ((state.atc_highest, state.atc_window), state.changed) == (before, False)


N, L, T = CardStatus.NORMAL, CardStatus.LOST, CardStatus.TEMPORARILY_LOST
ADMITTED = {
    ("formal loss", N): L,
    ("formal loss", T): L,
    ("temporary loss", N): T,
    ("lift", L): N,
    ("lift", T): N,
}
EVENTS = {
    "formal loss": lambda status: status_after_loss(status, LossKind.FORMAL),
    "temporary loss": lambda status: status_after_loss(status, LossKind.TEMPORARY),
    "lift": status_after_lift,
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("status", list(CardStatus))
def test_every_status_admits_only_its_events(status: CardStatus, event: str) -> None:
    assert EVENTS[event](status) == ADMITTED.get((event, status))
    assert EVENTS[event](int(status)) == ADMITTED.get((event, status))


@pytest.mark.parametrize("status", list(CardStatus))
@pytest.mark.parametrize("expired", [False, True])
def test_lost_comes_before_unusable_before_expired(status: CardStatus, expired: bool) -> None:
    expires_on = TODAY - timedelta(days=1) if expired else TODAY
    use = card_use(status, expires_on=expires_on, today=TODAY)
    if status in (L, T):
        assert use is CardUse.LOST
    elif status is not N:
        assert use is CardUse.NOT_USABLE
    else:
        assert use is (CardUse.EXPIRED if expired else CardUse.USABLE)


def test_last_day_of_validity_is_valid() -> None:
    assert not is_expired(TODAY, TODAY)
    assert is_expired(TODAY, TODAY + timedelta(days=1))
