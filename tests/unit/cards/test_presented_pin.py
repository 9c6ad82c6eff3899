"""What a presented PIN is worth: the first verdict that applies, and how the counter moves by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.key_store.requests import PinReferences
from server.cards.pin_rules import PIN_TRIES_MAX, PinVerdict, StoredPin, judge_pin, set_tries, tries_left
from server.cards.rules import CardStatus
from server.engine.operation import CardState
from server.errors import StateConflictError, UnavailableError

RIGHT, OTHER = "417203", "417204"
VERSION = 3


def card(*, tries: int = 0) -> CardState:
    return CardState(
        shard=0,
        card_id=1,
        status=CardStatus.NORMAL,
        atc_highest=0,
        atc_window=0,
        transaction_amount_max_minor=0,
        day_amount_max_minor=0,
        pin_tries=tries,
        usage=b"",
    )


def presented(reference: str, *, version: int = VERSION) -> PinReferences:
    return PinReferences(by_version={version: reference, version + 1: "000000"}, active_version=version + 1)


@given(
    has_pin=st.booleans(),
    tries=st.integers(0, PIN_TRIES_MAX + 2),
    is_readable=st.booleans(),
    is_right=st.booleans(),
    unblocks=st.integers(0, 5),
)
def test_first_verdict_that_applies_counts(
    has_pin: bool, tries: int, is_readable: bool, is_right: bool, unblocks: int
) -> None:
    applies = {
        PinVerdict.NO_PIN: not has_pin,
        PinVerdict.TRIES_EXCEEDED: tries >= PIN_TRIES_MAX,
        PinVerdict.BLOCK_INVALID: not is_readable,
        PinVerdict.WRONG: not is_right,
    }
    expected = next((verdict for verdict, does in applies.items() if does), PinVerdict.ACCEPTED)
    state = card(tries=tries)
    stored = StoredPin(VERSION, RIGHT, unblocks) if has_pin else None
    references = presented(RIGHT if is_right else OTHER) if is_readable else None
    assert judge_pin(state, stored, references) is expected
    tries_after = {PinVerdict.WRONG: tries + 1, PinVerdict.ACCEPTED: 0}.get(expected, tries)
    assert (state.pin_tries, state.changed) == (tries_after, tries_after != tries)
    if stored is not None:
        is_reset = expected is PinVerdict.ACCEPTED and unblocks > 0
        assert (stored.unblocks, stored.changed) == (0 if is_reset else unblocks, is_reset)
        assert stored.reference == RIGHT


@given(st.lists(st.booleans(), max_size=12))
def test_three_wrong_pins_in_a_row_block_whatever_comes_after(guesses: list[bool]) -> None:
    state, stored, wrong_in_a_row = card(), StoredPin(VERSION, RIGHT), 0
    for is_right in guesses:
        verdict = judge_pin(state, stored, presented(RIGHT if is_right else OTHER))
        if wrong_in_a_row >= PIN_TRIES_MAX:
            assert verdict is PinVerdict.TRIES_EXCEEDED
            continue
        assert verdict is (PinVerdict.ACCEPTED if is_right else PinVerdict.WRONG)
        wrong_in_a_row = 0 if is_right else wrong_in_a_row + 1
        assert tries_left(state) == PIN_TRIES_MAX - wrong_in_a_row


def test_reference_of_a_version_that_is_gone_is_neither_right_nor_wrong() -> None:
    state, stored = card(tries=1), StoredPin(VERSION - 1, RIGHT, 2)
    with pytest.raises(StateConflictError):
        judge_pin(state, stored, presented(RIGHT))
    assert (state.pin_tries, state.changed, stored.changed) == (1, False, False)


def test_reference_of_a_version_not_yet_seen_is_for_the_next_attempt() -> None:
    state, stored = card(tries=1), StoredPin(VERSION + 2, RIGHT, 2)
    with pytest.raises(UnavailableError):
        judge_pin(state, stored, presented(RIGHT))
    assert (state.pin_tries, state.changed, stored.changed) == (1, False, False)


def test_counter_that_stays_changes_no_row() -> None:
    state = card(tries=2)
    set_tries(state, 2)
    assert not state.changed
    set_tries(state, 0)
    assert (state.pin_tries, state.changed) == (0, True)


def test_tries_left_are_never_negative_and_none_without_a_card() -> None:
    assert [tries_left(card(tries=tries)) for tries in (0, 1, 2, 3, 9)] == [3, 2, 1, 0, 0]
    assert tries_left(None) == 0


def test_reference_is_not_shown() -> None:
    assert RIGHT not in repr(StoredPin(VERSION, RIGHT))
