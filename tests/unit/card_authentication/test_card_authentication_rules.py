"""From what the chip proved to the reason: a chip that did not prove itself hears nothing of its card."""

import pytest
from onecard.v1 import card_authentication_pb2

from server.card_authentication.rules import Reason, reason_of_answer, reason_of_cryptogram
from server.cards.rules import CardUse
from server.cards.single_use import TokenVerdict

OF_CARD = {
    CardUse.USABLE: Reason.AUTHENTIC,
    CardUse.LOST: Reason.CARD_LOST,
    CardUse.NOT_USABLE: Reason.CARD_NOT_USABLE,
    CardUse.EXPIRED: Reason.CARD_EXPIRED,
}


@pytest.mark.parametrize("use", [*CardUse, None])
def test_answer_that_is_not_genuine_hears_nothing_of_the_card(use: CardUse | None) -> None:
    assert reason_of_answer(TokenVerdict.INVALID, use) is Reason.CHALLENGE_INVALID
    assert reason_of_answer(TokenVerdict.EXPIRED, use) is Reason.CHALLENGE_INVALID
    assert reason_of_answer(TokenVerdict.USED, use) is Reason.CHALLENGE_USED
    assert reason_of_answer(TokenVerdict.WRONG_ANSWER, use) is Reason.NOT_AUTHENTIC


@pytest.mark.parametrize("use", CardUse)
def test_genuine_chip_hears_the_cards_state(use: CardUse) -> None:
    assert reason_of_answer(TokenVerdict.GENUINE, use) is OF_CARD[use]
    assert reason_of_cryptogram(valid=True, fresh=True, use=use) is OF_CARD[use]
    assert reason_of_cryptogram(valid=True, fresh=False, use=use) is Reason.ATC_REPLAYED
    for fresh in (False, True):
        assert reason_of_cryptogram(valid=False, fresh=fresh, use=use) is Reason.NOT_AUTHENTIC


def test_unknown_card_and_wrong_answer_are_not_told_apart() -> None:
    assert reason_of_answer(TokenVerdict.GENUINE, None) is Reason.NOT_AUTHENTIC
    assert reason_of_cryptogram(valid=True, fresh=True, use=None) is Reason.NOT_AUTHENTIC


def test_reasons_are_those_of_the_wire() -> None:
    wire = card_authentication_pb2.CardAuthenticationReason
    prefix = "CARD_AUTHENTICATION_REASON_"
    names = {name.removeprefix(prefix): number for name, number in wire.items() if number}
    assert {reason.name: int(reason) for reason in Reason} == names
