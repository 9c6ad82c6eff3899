"""Reasons of a decision: their order is their number, each has its response code, and the lower one wins."""

import itertools
from dataclasses import dataclass, field
from datetime import date, timedelta

import pytest
from onecard.v1 import authorization_pb2

from server.authorization.rules import (
    RESPONSE_CODES,
    Order,
    Reason,
    day_amount_minor,
    decide_deposit,
    decide_purchase,
)
from server.cards.rules import CardStatus
from server.engine.operation import Account, CardState

TODAY = date(2026, 11, 23)
BUSINESS_DATE = TODAY + timedelta(days=1)
STATUSES = {
    Reason.CARD_CANCELLED: CardStatus.CANCELLED,
    Reason.CARD_LOST: CardStatus.LOST,
    Reason.CARD_TEMPORARILY_LOST: CardStatus.TEMPORARILY_LOST,
    Reason.APPLICATION_LOCKED: CardStatus.APPLICATION_LOCKED,
    Reason.CARD_SEALED: CardStatus.SEALED,
}
# Reasons that cannot apply together: a card has one status, and none when there is no card.
EXCLUSIVE = {*STATUSES, Reason.UNKNOWN_CARD}
DECLINES = [reason for reason in Reason if reason is not Reason.APPROVED]
PAIRS = [pair for pair in itertools.combinations(DECLINES, 2) if not set(pair) <= EXCLUSIVE]
OF_DEPOSITS = {Reason.DUPLICATE_TRANSMISSION, Reason.UNKNOWN_CARD, Reason.CARD_EXPIRED, *STATUSES}


def usable_card() -> CardState:
    return CardState(
        card_id=1,
        status=CardStatus.NORMAL,
        atc_highest=0,
        atc_window=0,
        transaction_amount_max_minor=1_000,
        day_amount_max_minor=5_000,
        day=BUSINESS_DATE,
        day_amount_minor=4_000,
        pin_tries=0,
    )


@dataclass
class Scene:
    """A purchase that would be approved, until causes are added."""

    order: Order = field(default_factory=lambda: Order(amount_minor=1_000, duplicate=False))
    card: CardState | None = field(default_factory=usable_card)
    account: Account | None = field(default_factory=lambda: Account(1_000_000, 1_000, 0))
    expires_on: date = TODAY

    def add(self, reason: Reason) -> None:
        if reason is Reason.DUPLICATE_TRANSMISSION:
            self.order.duplicate = True
        elif reason is Reason.UNKNOWN_CARD:
            self.card = None
        elif reason is Reason.CARD_EXPIRED:
            self.expires_on = TODAY - timedelta(days=1)
        elif reason is Reason.CRYPTOGRAM_INVALID:
            self.order.cryptogram_valid = False
        elif reason is Reason.ATC_REPLAYED:
            self.order.fresh = False
        elif reason is Reason.INSUFFICIENT_FUNDS:
            self.account = Account(1_000_000, 1_500, 501)
        elif self.card is not None:
            if reason is Reason.TRANSACTION_AMOUNT_LIMIT:
                self.card.transaction_amount_max_minor = 999
            elif reason is Reason.DAY_AMOUNT_LIMIT:
                self.card.day_amount_minor = 4_001
            else:
                self.card.status = STATUSES[reason]

    def decide_purchase(self) -> Reason:
        return decide_purchase(
            self.order,
            self.card,
            self.account,
            expires_on=self.expires_on,
            today=TODAY,
            business_date=BUSINESS_DATE,
        )

    def decide_deposit(self) -> Reason:
        return decide_deposit(self.order, self.card, expires_on=self.expires_on, today=TODAY)


def scene(*reasons: Reason) -> Scene:
    made = Scene()
    for reason in reasons:
        made.add(reason)
    return made


def test_without_a_cause_both_are_approved_at_the_very_limits() -> None:
    assert scene().decide_purchase() is Reason.APPROVED
    assert scene().decide_deposit() is Reason.APPROVED


@pytest.mark.parametrize("reason", DECLINES, ids=lambda reason: reason.name)
def test_each_cause_alone_declines_by_its_name(reason: Reason) -> None:
    assert scene(reason).decide_purchase() is reason
    assert scene(reason).decide_deposit() is (reason if reason in OF_DEPOSITS else Reason.APPROVED)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0].name}-{pair[1].name}")
def test_of_two_causes_the_lower_reason_wins(pair: tuple[Reason, Reason]) -> None:
    # The higher one first or last: the order of arrival does not matter.
    for reasons in (pair, pair[::-1]):
        assert scene(*reasons).decide_purchase() is min(pair)
        of_deposit = [reason for reason in pair if reason in OF_DEPOSITS]
        assert scene(*reasons).decide_deposit() is min(of_deposit, default=Reason.APPROVED)


def test_all_causes_fall_away_one_by_one_in_order() -> None:
    for position in range(len(DECLINES)):
        left = DECLINES[position:]
        assert scene(*(r for r in reversed(left))).decide_purchase() is min(left)


def test_reasons_are_those_of_the_wire_and_each_has_its_response_code() -> None:
    wire = authorization_pb2.DecisionReason
    assert {reason.name: int(reason) for reason in Reason} == {
        name.removeprefix("DECISION_REASON_"): number for name, number in wire.items() if number
    }
    assert {reason.name: code for reason, code in RESPONSE_CODES.items()} == {
        "APPROVED": "00",
        "DUPLICATE_TRANSMISSION": "94",
        "UNKNOWN_CARD": "14",
        "CARD_CANCELLED": "14",
        "CARD_LOST": "41",
        "CARD_TEMPORARILY_LOST": "41",
        "APPLICATION_LOCKED": "62",
        "CARD_SEALED": "57",
        "CARD_EXPIRED": "54",
        "CRYPTOGRAM_INVALID": "05",
        "ATC_REPLAYED": "05",
        "TRANSACTION_AMOUNT_LIMIT": "61",
        "DAY_AMOUNT_LIMIT": "61",
        "INSUFFICIENT_FUNDS": "51",
    }


def test_held_money_is_not_available() -> None:
    made = scene()
    made.account = Account(1_000_000, 1_999, 1_000)
    assert made.decide_purchase() is Reason.INSUFFICIENT_FUNDS
    made.account = Account(1_000_000, 2_000, 1_000)
    assert made.decide_purchase() is Reason.APPROVED


def test_purchases_of_another_day_do_not_count() -> None:
    card = usable_card()
    assert day_amount_minor(card, BUSINESS_DATE) == 4_000
    assert day_amount_minor(card, BUSINESS_DATE + timedelta(days=1)) == 0
    assert day_amount_minor(card, BUSINESS_DATE - timedelta(days=1)) == 0
