"""Reasons of a PIN decision: their order is their number, and each has its response code."""

from datetime import date, timedelta

import pytest
from onecard.v1 import cryptography_pb2 as pb

from server.cards.pin_rules import PIN_TRIES_MAX, PinVerdict
from server.cards.rules import CardStatus
from server.cryptography.rules import (
    OF_VERDICT,
    PIN_UNBLOCKS_MAX,
    RESPONSE_CODES,
    PinReason,
    reason_of_card,
    reason_of_unblocking,
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


def test_verdicts_on_a_presented_pin_have_reasons_in_their_order() -> None:
    assert list(OF_VERDICT) == list(PinVerdict)
    assert list(OF_VERDICT.values()) == sorted(OF_VERDICT.values())


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
