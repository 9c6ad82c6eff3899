"""Pure decisions over money: reasons in one enum ordered by precedence, each with its response code.

The first reason that applies is the answer. No I/O and no clock.
"""

from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from server.cards.rules import CardStatus, is_expired
from server.engine.operation import Account, CardState


class Reason(IntEnum):
    """``onecard.v1.DecisionReason``, in ascending order of precedence."""

    APPROVED = 1
    DUPLICATE_TRANSMISSION = 2
    UNKNOWN_CARD = 3
    CARD_CANCELLED = 4
    CARD_LOST = 5
    CARD_TEMPORARILY_LOST = 6
    APPLICATION_LOCKED = 7
    CARD_SEALED = 8
    CARD_EXPIRED = 9
    CRYPTOGRAM_INVALID = 10
    ATC_REPLAYED = 11
    TRANSACTION_AMOUNT_LIMIT = 12
    DAY_AMOUNT_LIMIT = 13
    INSUFFICIENT_FUNDS = 14


RESPONSE_CODES: dict[Reason, str] = {
    Reason.APPROVED: "00",
    Reason.DUPLICATE_TRANSMISSION: "94",
    Reason.UNKNOWN_CARD: "14",
    Reason.CARD_CANCELLED: "14",
    Reason.CARD_LOST: "41",
    Reason.CARD_TEMPORARILY_LOST: "41",
    Reason.APPLICATION_LOCKED: "62",
    Reason.CARD_SEALED: "57",
    Reason.CARD_EXPIRED: "54",
    Reason.CRYPTOGRAM_INVALID: "05",
    Reason.ATC_REPLAYED: "05",
    Reason.TRANSACTION_AMOUNT_LIMIT: "61",
    Reason.DAY_AMOUNT_LIMIT: "61",
    Reason.INSUFFICIENT_FUNDS: "51",
}
_OF_STATUS: dict[int, Reason] = {
    CardStatus.CANCELLED: Reason.CARD_CANCELLED,
    CardStatus.LOST: Reason.CARD_LOST,
    CardStatus.TEMPORARILY_LOST: Reason.CARD_TEMPORARILY_LOST,
    CardStatus.APPLICATION_LOCKED: Reason.APPLICATION_LOCKED,
    CardStatus.SEALED: Reason.CARD_SEALED,
}


@dataclass(slots=True)
class Order:
    """What is asked for, and what the chip proved: ``fresh`` tells that its counter was admitted."""

    amount_minor: int
    duplicate: bool
    cryptogram_valid: bool = True
    fresh: bool = True


def day_amount_minor(card: CardState, business_date: date) -> int:
    """Amount of the business date's purchases so far."""
    return card.day_amount_minor if card.day == business_date else 0


def decide_purchase(
    order: Order,
    card: CardState | None,
    account: Account | None,
    *,
    expires_on: date | None,
    today: date,
    business_date: date,
) -> Reason:
    """Decides a purchase; changes nothing."""
    reason = _decide_card(order, card, expires_on=expires_on, today=today)
    if reason is not Reason.APPROVED:
        return reason
    assert card is not None, "an unknown card was declined above"
    if not order.cryptogram_valid:
        return Reason.CRYPTOGRAM_INVALID
    if not order.fresh:
        return Reason.ATC_REPLAYED
    if order.amount_minor > card.transaction_amount_max_minor:
        return Reason.TRANSACTION_AMOUNT_LIMIT
    if day_amount_minor(card, business_date) + order.amount_minor > card.day_amount_max_minor:
        return Reason.DAY_AMOUNT_LIMIT
    if account is None or order.amount_minor > account.available_minor:
        return Reason.INSUFFICIENT_FUNDS
    return Reason.APPROVED


def decide_deposit(order: Order, card: CardState | None, *, expires_on: date | None, today: date) -> Reason:
    """Decides a deposit: only the state of the card matters; changes nothing."""
    return _decide_card(order, card, expires_on=expires_on, today=today)


def _decide_card(order: Order, card: CardState | None, *, expires_on: date | None, today: date) -> Reason:
    if order.duplicate:
        return Reason.DUPLICATE_TRANSMISSION
    if card is None or expires_on is None:
        return Reason.UNKNOWN_CARD
    if card.status != CardStatus.NORMAL:
        return _OF_STATUS[card.status]
    return Reason.CARD_EXPIRED if is_expired(expires_on, today) else Reason.APPROVED
