"""An advice is posted over what the card or its limits are, never over a doubt that it happened, or on this card."""

import pytest
from money_scene import Scene
from test_decision_precedence import CARDS, CHIP, FUNDS, LIMITS, NEW, PLACE, WALLET, Trial

from server.authorization.rules import FORCED_OVER, Reason
from server.engine.operation import OperationKind as Kind

FORCED = PLACE | CARDS | WALLET | LIMITS | FUNDS
DOUBTS = NEW | CHIP


def advised(kind: Kind) -> Trial:
    """An advice with the chip's data."""
    scene = Scene()
    operation = scene.operation(kind, 1_000, is_advice=True)
    operation.cryptogram = scene.presented()
    return Trial(scene, kind, operation)


@pytest.mark.parametrize("kind", [Kind.PURCHASE, Kind.TAP])
@pytest.mark.parametrize("reason", [r for r in FORCED if r is not Reason.UNKNOWN_CARD], ids=lambda r: r.name)
def test_advice_is_posted_over_every_other_decline(kind: Kind, reason: Reason) -> None:
    made = advised(kind)
    FORCED[reason](made)
    assert reason in FORCED_OVER
    outcome = made.scene.decide(made.operation)
    assert (outcome.reason, outcome.response_code, outcome.approved_minor) == (
        Reason.FORCED_POST,
        "00",
        1_000,
    )


@pytest.mark.parametrize("reason", [*DOUBTS, Reason.UNKNOWN_CARD], ids=lambda r: r.name)
def test_advice_is_not_posted_over_a_doubt(reason: Reason) -> None:
    made = advised(Kind.PURCHASE)
    (DOUBTS | CARDS)[reason](made)
    outcome = made.scene.decide(made.operation)
    assert (outcome.reason, outcome.postings) == (reason, ())


@pytest.mark.parametrize("doubt", CHIP, ids=lambda r: r.name)
@pytest.mark.parametrize(
    "forced",
    [Reason.TERMINAL_NOT_PERMITTED, Reason.MERCHANT_INVALID, Reason.CARD_LOST, Reason.CARD_EXPIRED],
    ids=lambda r: r.name,
)
def test_advice_is_not_posted_over_a_doubt_behind_another_reason(doubt: Reason, forced: Reason) -> None:
    made = advised(Kind.PURCHASE)
    FORCED[forced](made)
    CHIP[doubt](made)
    outcome = made.scene.decide(made.operation)
    assert outcome.postings == ()
    assert made.scene.account.posted_minor == 10_000


@pytest.mark.parametrize("kind", [Kind.COMPLETION, Kind.REFUND])
@pytest.mark.parametrize(
    "earlier", [Reason.DUPLICATE_TRANSMISSION, Reason.UNKNOWN_CARD], ids=lambda r: r.name
)
def test_advice_without_original_answers_what_comes_earlier(kind: Kind, earlier: Reason) -> None:
    scene = Scene()
    purchase = scene.operation(Kind.PURCHASE)
    made = Trial(scene, kind, scene.follower(kind, purchase, 100, is_advice=True))
    (NEW | CARDS)[earlier](made)
    assert scene.decide(made.operation).reason == earlier
