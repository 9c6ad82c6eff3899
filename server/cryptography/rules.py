"""Pure decisions over a card's PIN: reasons in one enum ordered by precedence, each with its response code.

The first reason that applies is the answer. No I/O and no clock. Must never see a PIN: only whether what was presented
fits what is stored.
"""

from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from server.cards.rules import CardStatus, is_expired
from server.engine.operation import CardState

# Wrong PINs in a row after which nothing more is compared, until the PIN is unblocked or issued anew.
PIN_TRIES_MAX = 3


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
}
_OF_STATUS: dict[int, PinReason] = {
    CardStatus.CANCELLED: PinReason.CARD_CANCELLED,
    CardStatus.LOST: PinReason.CARD_LOST,
    CardStatus.TEMPORARILY_LOST: PinReason.CARD_LOST,
    CardStatus.APPLICATION_LOCKED: PinReason.APPLICATION_LOCKED,
    CardStatus.SEALED: PinReason.CARD_SEALED,
}


@dataclass(slots=True)
class PresentedPin:
    """What is known of a presented PIN: ``readable`` tells that its block decodes, ``fits`` that it is the card's."""

    readable: bool
    fits: bool


def reason_of_card(card: CardState | None, *, expires_on: date | None, today: date) -> PinReason:
    """Whether the card's PIN may be worked on at all: ACCEPTED, or why not."""
    if card is None or expires_on is None:
        return PinReason.UNKNOWN_CARD
    if card.status != CardStatus.NORMAL:
        return _OF_STATUS[card.status]
    return PinReason.CARD_EXPIRED if is_expired(expires_on, today) else PinReason.ACCEPTED


def reason_of_pin(card: CardState, *, has_pin: bool, presented: PresentedPin) -> PinReason:
    """For a PIN presented to a card in use; changes nothing."""
    if not has_pin:
        return PinReason.NO_PIN
    if card.pin_tries >= PIN_TRIES_MAX:
        return PinReason.TRIES_EXCEEDED
    if not presented.readable:
        return PinReason.PIN_BLOCK_INVALID
    return PinReason.ACCEPTED if presented.fits else PinReason.WRONG_PIN


def count_try(card: CardState, reason: PinReason) -> None:
    """Moves the counter: a wrong PIN adds one, an accepted one sets it back."""
    tries = {PinReason.WRONG_PIN: card.pin_tries + 1, PinReason.ACCEPTED: 0}.get(reason, card.pin_tries)
    if tries != card.pin_tries:
        card.pin_tries, card.changed = tries, True


def tries_left(card: CardState | None) -> int:
    """Tries before the PIN is blocked."""
    return max(0, PIN_TRIES_MAX - card.pin_tries) if card is not None else 0
