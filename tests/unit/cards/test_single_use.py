"""Tokens serve once: from issue to the end of their life, and whoever asks first uses them up."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from crypto.challenge import Challenge
from crypto.key_store import KeyStore
from server.card_authentication.service import JudgeAnswers
from server.cards.chip_answers import AnswerOperation, JudgesAnswers
from server.cards.single_use import SPENDING, TokenVerdict, judge_token
from server.edge.caller import Participant
from server.engine.operation import Batch, OperationKind
from server.errors import UnavailableError
from server.identity.service import VerifyByChip

ISSUED = datetime(2026, 11, 23, 12, tzinfo=UTC)
ISSUED_AT_S = int(ISSUED.timestamp())
CODE_LIFE_S, CHALLENGE_LIFE_S = 65, 30
CALLER = Participant("bank-01", "bank", 7, frozenset(), (), frozenset(), frozenset())
# Nothing here asks it: what it would say stands in the operations.
KEY_STORE = cast(KeyStore, None)


def judged(
    after: timedelta, *, life_s: int = CODE_LIFE_S, used: bool = False, forged: bool = False
) -> TokenVerdict:
    issued_at_s = None if forged else ISSUED_AT_S
    return judge_token(issued_at_s, used=used, now=ISSUED + after, life_s=life_s)


def batch(after: timedelta = timedelta(0)) -> Batch:
    today = ISSUED.date()
    return Batch(
        cards={},
        accounts={},
        now=ISSUED + after,
        today=today,
        business_date=today,
        business_date_text=f"{today:%Y%m%d}",
    )


def answer(*, proven: bool = True, **changes: Any) -> AnswerOperation:
    """A chip's answer that the key store has checked."""
    parts: dict[str, Any] = {
        "capability": None,
        "kind": OperationKind.AUTHENTICATE_CARD,
        "participant_id": "bank-01",
        "request_id": None,
        "request_digest": b"",
        "deadline": 0.0,
        "caller": CALLER,
        "token_digest": b"digest",
        "token_issued_at_s": ISSUED_AT_S,
        "challenge": Challenge(process_factor=bytes(8), original_data=bytes(8), issued_at_s=ISSUED_AT_S),
        "response": bytes(8),
        "proven": proven,
        "checked": True,
    }
    return AnswerOperation(**parts | changes)


@pytest.fixture
def judge() -> JudgesAnswers:
    return JudgeAnswers(KEY_STORE, challenge_life_s=CHALLENGE_LIFE_S)


@pytest.mark.parametrize("life_s", [CODE_LIFE_S, CHALLENGE_LIFE_S])
def test_token_lives_from_five_seconds_before_its_issue_to_the_end_of_its_life(life_s: int) -> None:
    moment, life = timedelta(milliseconds=1), timedelta(seconds=life_s)
    assert judged(timedelta(seconds=-5) - moment, life_s=life_s) is TokenVerdict.EXPIRED
    assert judged(timedelta(seconds=-5), life_s=life_s) is TokenVerdict.GENUINE
    assert judged(life, life_s=life_s) is TokenVerdict.GENUINE
    assert judged(life + moment, life_s=life_s) is TokenVerdict.EXPIRED


def test_token_is_judged_invalid_before_expired_before_used() -> None:
    assert judged(timedelta(days=1), used=True, forged=True) is TokenVerdict.INVALID
    assert judged(timedelta(0), forged=True) is TokenVerdict.INVALID
    assert judged(timedelta(days=1), used=True) is TokenVerdict.EXPIRED
    assert judged(timedelta(0), used=True) is TokenVerdict.USED


def test_answer_is_judged_by_its_value_only_when_its_challenge_is_genuine(judge: JudgesAnswers) -> None:
    forged = {"challenge": None, "token_issued_at_s": None}
    late, used = timedelta(seconds=CHALLENGE_LIFE_S, milliseconds=1), batch()
    used.spent_tokens.add(b"digest")
    for proven in (False, True):
        assert judge.judge_answer(answer(proven=proven, **forged), batch()) is TokenVerdict.INVALID
        assert judge.judge_answer(answer(proven=proven), batch(late)) is TokenVerdict.EXPIRED
        assert judge.judge_answer(answer(proven=proven), used) is TokenVerdict.USED
    assert judge.judge_answer(answer(), batch()) is TokenVerdict.GENUINE
    assert judge.judge_answer(answer(proven=False), batch()) is TokenVerdict.WRONG_ANSWER


@pytest.mark.parametrize("proven", [True, False])
def test_challenge_that_was_answered_is_used_for_every_capability_of_the_batch(
    judge: JudgesAnswers, proven: bool
) -> None:
    together = batch()
    judge.judge_answer(answer(proven=proven), together)
    assert judge.judge_answer(answer(), together) is TokenVerdict.USED
    by_chip = VerifyByChip(KEY_STORE, challenge_life_s=CHALLENGE_LIFE_S)
    assert by_chip.judge_answer(answer(), together) is TokenVerdict.USED
    assert by_chip.judge_answer(answer(token_digest=b"other"), together) is TokenVerdict.GENUINE


def test_token_that_is_not_genuine_is_not_used_up(judge: JudgesAnswers) -> None:
    late = batch(timedelta(seconds=CHALLENGE_LIFE_S + 1))
    judge.judge_answer(answer(), late)
    judge.judge_answer(answer(challenge=None, token_issued_at_s=None), late)
    assert late.spent_tokens == set()


def test_genuine_and_wrong_answers_alone_use_a_token_up() -> None:
    assert {TokenVerdict.GENUINE, TokenVerdict.WRONG_ANSWER} == SPENDING


def test_answer_the_key_store_did_not_check_fails_closed_and_leaves_its_challenge(
    judge: JudgesAnswers,
) -> None:
    together = batch()
    with pytest.raises(UnavailableError) as caught:
        judge.judge_answer(answer(checked=False), together)
    assert caught.value.reason == "KEY_STORE_UNAVAILABLE"
    assert together.spent_tokens == set()
