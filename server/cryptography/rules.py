"""Pure decisions over a card's PIN: reasons in one enum ordered by precedence, each with its response code.

The first reason that applies is the answer; what a presented PIN is worth is judged by ``cards/pin_rules.py``. No I/O
and no clock. Must never see a PIN.
"""

from datetime import date
from enum import IntEnum

from server.cards.pin_rules import PinVerdict
from server.cards.rules import CardStatus, is_expired
from server.engine.operation import CardState

# Unblockings without a right PIN between them, after which only a new PIN helps: whoever may unblock does not get to
# guess for ever.
PIN_UNBLOCKS_MAX = 5


class PinReason(IntEnum):
    """``onecard.v1.PinReason``, in ascending order of precedence."""

    ACCEPTED = 1
    UNKNOWN_CARD = 2
    CARD_CANCELLED = 3
    CARD_LOST = 4
    APPLICATION_LOCKED = 5
    CARD_SEALED = 6
    CARD_EXPIRED = 7
    NO_PIN = 8
    TRIES_EXCEEDED = 9
    PIN_BLOCK_INVALID = 10
    WRONG_PIN = 11
    UNBLOCKS_EXCEEDED = 12


RESPONSE_CODES: dict[PinReason, str] = {
    PinReason.ACCEPTED: "00",
    PinReason.UNKNOWN_CARD: "14",
    PinReason.CARD_CANCELLED: "14",
    PinReason.CARD_LOST: "41",
    PinReason.APPLICATION_LOCKED: "62",
    PinReason.CARD_SEALED: "57",
    PinReason.CARD_EXPIRED: "54",
    PinReason.NO_PIN: "57",
    PinReason.TRIES_EXCEEDED: "75",
    PinReason.PIN_BLOCK_INVALID: "A7",
    PinReason.WRONG_PIN: "55",
    PinReason.UNBLOCKS_EXCEEDED: "75",
}
OF_VERDICT: dict[PinVerdict, PinReason] = {
    PinVerdict.ACCEPTED: PinReason.ACCEPTED,
    PinVerdict.NO_PIN: PinReason.NO_PIN,
    PinVerdict.TRIES_EXCEEDED: PinReason.TRIES_EXCEEDED,
    PinVerdict.BLOCK_INVALID: PinReason.PIN_BLOCK_INVALID,
    PinVerdict.WRONG: PinReason.WRONG_PIN,
}
_OF_STATUS: dict[int, PinReason] = {
    CardStatus.CANCELLED: PinReason.CARD_CANCELLED,
    CardStatus.LOST: PinReason.CARD_LOST,
    CardStatus.TEMPORARILY_LOST: PinReason.CARD_LOST,
    CardStatus.APPLICATION_LOCKED: PinReason.APPLICATION_LOCKED,
    CardStatus.SEALED: PinReason.CARD_SEALED,
}


def reason_of_card(card: CardState | None, *, expires_on: date | None, today: date) -> PinReason:
    """Whether the card's PIN may be worked on at all: ACCEPTED, or why not."""
    if card is None or expires_on is None:
        return PinReason.UNKNOWN_CARD
    if card.status != CardStatus.NORMAL:
        return _OF_STATUS[card.status]
    return PinReason.CARD_EXPIRED if is_expired(expires_on, today) else PinReason.ACCEPTED


def reason_of_unblocking(card: CardState, *, unblocks: int | None) -> PinReason:
    """For an unblocking; ``unblocks`` are those since the PIN was last right, None when the card has no PIN."""
    if unblocks is None:
        return PinReason.NO_PIN
    is_needed = card.pin_tries > 0
    return PinReason.UNBLOCKS_EXCEEDED if is_needed and unblocks >= PIN_UNBLOCKS_MAX else PinReason.ACCEPTED
