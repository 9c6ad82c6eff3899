"""From what the chip proved to the reason: a chip that did not prove itself hears nothing of its card."""

from datetime import UTC, datetime, timedelta

import pytest
from onecard.v1 import card_authentication_pb2

from crypto.challenge import Challenge
from server.card_authentication.rules import Reason, reason_of_answer, reason_of_cryptogram
from server.cards.presented import CheckedAnswer, TokenVerdict, judge_answer
from server.cards.rules import CardUse

ISSUED = datetime(2026, 11, 23, 12, tzinfo=UTC)
OF_CARD = {
    CardUse.USABLE: Reason.AUTHENTIC,
    CardUse.LOST: Reason.CARD_LOST,
    CardUse.NOT_USABLE: Reason.CARD_NOT_USABLE,
    CardUse.EXPIRED: Reason.CARD_EXPIRED,
}


def judged(after: timedelta, *, proven: bool, used: bool = False, forged: bool = False) -> TokenVerdict:
    issued_at_s = int(ISSUED.timestamp())
    challenge = Challenge(process_factor=bytes(8), original_data=bytes(8), issued_at_s=issued_at_s)
    answer = CheckedAnswer(
        challenge=None if forged else challenge, token_digest=b"digest", response=bytes(8), proven=proven
    )
    spent = {b"digest"} if used else set()
    return judge_answer(answer, spent=spent, now=ISSUED + after, life_s=30)


def test_answer_is_judged_invalid_expired_used_and_only_then_by_its_value() -> None:
    late, early = timedelta(seconds=30, milliseconds=1), timedelta(seconds=30)
    assert judged(late, proven=True, used=True, forged=True) is TokenVerdict.INVALID
    assert judged(late, proven=True, used=True) is TokenVerdict.EXPIRED
    assert judged(early, proven=True, used=True) is TokenVerdict.USED
    assert judged(early, proven=True) is TokenVerdict.GENUINE
    assert judged(early, proven=False) is TokenVerdict.WRONG_ANSWER


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
