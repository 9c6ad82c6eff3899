"""Reasons of a PIN decision: their order is their number, each has its response code, and the counter moves by them."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onecard.v1 import cryptography_pb2 as pb

from server.cards.rules import CardStatus
from server.cryptography.rules import (
    PIN_TRIES_MAX,
    PIN_UNBLOCKS_MAX,
    RESPONSE_CODES,
    PinReason,
    count_try,
    reason_before_comparing,
    reason_of_card,
    reason_of_unblocking,
    tries_left,
)
from server.engine.operation import CardState

TODAY = date(2026, 11, 24)
UNEXPIRED, EXPIRED = TODAY, TODAY - timedelta(days=1)
STATUSES = {
    CardStatus.CANCELLED: PinReason.CARD_CANCELLED,
    CardStatus.LOST: PinReason.CARD_LOST,
    CardStatus.TEMPORARILY_LOST: PinReason.CARD_LOST,
    CardStatus.APPLICATION_LOCKED: PinReason.APPLICATION_LOCKED,
    CardStatus.SEALED: PinReason.CARD_SEALED,
}


def card(*, status: CardStatus = CardStatus.NORMAL, tries: int = 0) -> CardState:
    return CardState(
        shard=0,
        card_id=1,
        status=status,
        atc_highest=0,
        atc_window=0,
        transaction_amount_max_minor=0,
        day_amount_max_minor=0,
        pin_tries=tries,
        usage=b"",
    )


def test_reasons_are_those_of_the_wire_with_their_numbers() -> None:
    wire = {name.removeprefix("PIN_REASON_"): number for name, number in pb.PinReason.items() if number}
    assert wire == {reason.name: reason.value for reason in PinReason}
    assert set(RESPONSE_CODES) == set(PinReason)


def test_response_codes_are_those_of_the_proto() -> None:
    assert {reason.name: code for reason, code in RESPONSE_CODES.items()} == {
        "ACCEPTED": "00",
        "UNKNOWN_CARD": "14",
        "CARD_CANCELLED": "14",
        "CARD_LOST": "41",
        "APPLICATION_LOCKED": "62",
        "CARD_SEALED": "57",
        "CARD_EXPIRED": "54",
        "NO_PIN": "57",
        "TRIES_EXCEEDED": "75",
        "PIN_BLOCK_INVALID": "A7",
        "WRONG_PIN": "55",
        "UNBLOCKS_EXCEEDED": "75",
    }


@pytest.mark.parametrize("status", [None, *CardStatus])
@pytest.mark.parametrize("expires_on", [UNEXPIRED, EXPIRED])
def test_status_comes_before_expiry(status: CardStatus | None, expires_on: date) -> None:
    state = None if status is None else card(status=status)
    reason = reason_of_card(state, expires_on=expires_on, today=TODAY)
    if status is None:
        assert reason is PinReason.UNKNOWN_CARD
    elif status in STATUSES:
        assert reason is STATUSES[status]
    else:
        assert reason is (PinReason.CARD_EXPIRED if expires_on == EXPIRED else PinReason.ACCEPTED)


def test_locked_row_of_a_card_that_the_directory_does_not_know_is_unknown() -> None:
    assert reason_of_card(card(), expires_on=None, today=TODAY) is PinReason.UNKNOWN_CARD


@given(
    has_pin=st.booleans(),
    tries=st.integers(0, PIN_TRIES_MAX + 2),
    readable=st.booleans(),
)
def test_first_reason_that_applies_is_the_answer(has_pin: bool, tries: int, readable: bool) -> None:
    applies = {
        PinReason.NO_PIN: not has_pin,
        PinReason.TRIES_EXCEEDED: tries >= PIN_TRIES_MAX,
        PinReason.PIN_BLOCK_INVALID: not readable,
    }
    expected = min((reason for reason, does in applies.items() if does), default=PinReason.ACCEPTED)
    state = card(tries=tries)
    reason = reason_before_comparing(state, has_pin=has_pin, is_readable=readable)
    assert reason is expected
    assert (state.pin_tries, state.changed) == (tries, False)


@pytest.mark.parametrize("reason", list(PinReason))
@pytest.mark.parametrize("tries", range(PIN_TRIES_MAX + 1))
def test_wrong_pin_adds_one_and_the_accepted_one_sets_back(reason: PinReason, tries: int) -> None:
    state = card(tries=tries)
    count_try(state, reason)
    expected = {PinReason.WRONG_PIN: tries + 1, PinReason.ACCEPTED: 0}.get(reason, tries)
    assert state.pin_tries == expected
    assert state.changed == (expected != tries)


@given(st.lists(st.booleans(), max_size=12))
def test_three_wrong_pins_in_a_row_block_whatever_comes_after(guesses: list[bool]) -> None:
    state, wrong_in_a_row = card(), 0
    for fits in guesses:
        reason = reason_before_comparing(state, has_pin=True, is_readable=True)
        if reason is PinReason.ACCEPTED and not fits:
            reason = PinReason.WRONG_PIN
        count_try(state, reason)
        if wrong_in_a_row >= PIN_TRIES_MAX:
            assert reason is PinReason.TRIES_EXCEEDED
            continue
        assert reason is (PinReason.ACCEPTED if fits else PinReason.WRONG_PIN)
        wrong_in_a_row = 0 if fits else wrong_in_a_row + 1
        assert tries_left(state) == PIN_TRIES_MAX - wrong_in_a_row


@pytest.mark.parametrize("tries", range(PIN_TRIES_MAX + 1))
@pytest.mark.parametrize("unblocks", [None, 0, PIN_UNBLOCKS_MAX - 1, PIN_UNBLOCKS_MAX, PIN_UNBLOCKS_MAX + 1])
def test_unblocking_ends_where_it_would_be_a_way_to_guess(tries: int, unblocks: int | None) -> None:
    reason = reason_of_unblocking(card(tries=tries), unblocks=unblocks)
    if unblocks is None:
        assert reason is PinReason.NO_PIN
    else:
        # What gives no new guess is always granted.
        used_up = unblocks >= PIN_UNBLOCKS_MAX and tries > 0
        assert reason is (PinReason.UNBLOCKS_EXCEEDED if used_up else PinReason.ACCEPTED)


def test_tries_left_are_never_negative_and_none_without_a_card() -> None:
    assert [tries_left(card(tries=tries)) for tries in (0, 1, 2, 3, 9)] == [3, 2, 1, 0, 0]
    assert tries_left(None) == 0
