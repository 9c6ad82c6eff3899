"""What follows an operation gives back exactly what it took, from where it came, however the two are combined."""

import pytest
from money_scene import CARD, FINANCIAL, FUND, SETTLEMENT, SUSPENSE, Scene

from server.authorization.operations import FLAG_ADVICE, FLAG_FORCED, wallet_account
from server.authorization.originals import HoldState
from server.authorization.rules import Reason
from server.authorization.usage import Usage
from server.engine.operation import OperationKind as Kind
from server.engine.operation import Posting
from server.rulebook.rules import Channel

HELD = Channel.PRE_AUTHORIZATION


def usage_of(scene: Scene, channel: Channel) -> tuple[int, int, int, int]:
    assert scene.card is not None
    return Usage(scene.card.usage, scene.batch.business_date).of(channel)


def forced_purchase(scene: Scene, amount_minor: int) -> tuple:
    advice = scene.operation(Kind.PURCHASE, amount_minor, is_advice=True)
    return advice, scene.decide(advice)


def test_forced_advice_takes_what_is_there_and_the_rest_from_suspense() -> None:
    scene = Scene()
    advice, outcome = forced_purchase(scene, 10_300)
    assert outcome.reason == Reason.FORCED_POST
    assert outcome.postings == (
        Posting(FINANCIAL, SETTLEMENT, 10_000),
        Posting(SUSPENSE, SETTLEMENT, 300),
    )
    assert scene.account.posted_minor == 0
    assert advice.money is not None
    assert advice.money.flags == FLAG_ADVICE | FLAG_FORCED


def test_advice_that_would_be_approved_is_not_flagged_as_forced() -> None:
    scene = Scene()
    advice, outcome = forced_purchase(scene, 10_000)
    assert outcome.reason == Reason.APPROVED
    assert advice.money is not None
    assert advice.money.flags == FLAG_ADVICE


def test_forced_advice_on_an_empty_wallet_takes_all_from_suspense() -> None:
    scene = Scene()
    advice = scene.operation(Kind.PURCHASE, 500, is_advice=True, wallet=2)
    assert scene.decide(advice).postings == (Posting(SUSPENSE, SETTLEMENT, 500),)
    assert wallet_account(FINANCIAL, 2) not in scene.accounts


@pytest.mark.parametrize("kind", [Kind.REFUND, Kind.REVERSAL])
def test_what_suspense_paid_is_given_back_to_it_first(kind: Kind) -> None:
    scene = Scene()
    advice, _ = forced_purchase(scene, 10_300)
    assert scene.decide(scene.follower(kind, advice, 200)).postings == (Posting(SETTLEMENT, SUSPENSE, 200),)
    assert scene.decide(scene.follower(kind, advice, 300)).postings == (
        Posting(SETTLEMENT, SUSPENSE, 100),
        Posting(SETTLEMENT, FINANCIAL, 200),
    )
    assert scene.decide(scene.follower(kind, advice, 9_800)).postings == (
        Posting(SETTLEMENT, FINANCIAL, 9_800),
    )
    assert scene.account.posted_minor == 10_000


def test_reversed_refund_takes_from_suspense_what_the_refund_gave_it() -> None:
    scene = Scene()
    advice, _ = forced_purchase(scene, 10_300)
    refund = scene.follower(Kind.REFUND, advice, 500)
    scene.decide(refund)
    assert scene.account.posted_minor == 200
    scene.account.posted_minor += 5_000
    assert scene.decide(scene.follower(Kind.REVERSAL, refund)).postings == (
        Posting(FINANCIAL, SETTLEMENT, 200),
        Posting(SUSPENSE, SETTLEMENT, 300),
    )
    # A second refund gives the suspense account what it paid, and no more.
    again = scene.decide(scene.follower(Kind.REFUND, advice, 500))
    assert again.postings == (Posting(SETTLEMENT, SUSPENSE, 300), Posting(SETTLEMENT, FINANCIAL, 200))
    assert scene.account.posted_minor == 5_200


@pytest.mark.parametrize(("kind", "source"), [(Kind.DEPOSIT, SETTLEMENT), (Kind.BENEFIT_CREDIT, FUND)])
def test_reversed_credit_whose_money_was_spent_comes_from_suspense(kind: Kind, source: int) -> None:
    scene = Scene()
    credit = scene.operation(kind, 1_000)
    assert scene.decide(credit).postings == (Posting(source, FINANCIAL, 1_000),)
    scene.account.posted_minor = 400
    scene.account.held_minor = 100
    assert scene.decide(scene.follower(Kind.REVERSAL, credit)).postings == (
        Posting(FINANCIAL, source, 300),
        Posting(SUSPENSE, source, 700),
    )
    assert scene.account.available_minor == 0


@pytest.mark.parametrize("kind", [Kind.REFUND, Kind.VOID, Kind.REVERSAL])
def test_money_of_another_wallet_goes_back_to_that_wallet(kind: Kind) -> None:
    scene = Scene()
    second = scene.batch.account(wallet_account(FINANCIAL, 2), card_id=CARD, shard=0)
    second.posted_minor = 3_000
    purchase = scene.operation(Kind.PURCHASE, 1_000, wallet=2)
    scene.decide(purchase)
    # The follower does not name the wallet.
    follower = scene.follower(kind, purchase, 0 if kind is Kind.VOID else 1_000)
    assert scene.decide(follower).reason == Reason.APPROVED
    assert (second.posted_minor, scene.account.posted_minor) == (3_000, 10_000)
    assert follower.account_id == second.account_id
    if kind is not Kind.REVERSAL:
        # And taken again, it is taken from there.
        assert scene.decide(scene.follower(Kind.REVERSAL, follower)).reason == Reason.APPROVED
        assert (second.posted_minor, scene.account.posted_minor) == (2_000, 10_000)


def test_completed_hold_of_another_wallet_is_refunded_to_that_wallet() -> None:
    scene = Scene()
    second = scene.batch.account(wallet_account(FINANCIAL, 2), card_id=CARD, shard=0)
    second.posted_minor = 3_000
    held = scene.operation(Kind.PRE_AUTHORIZATION, 1_000, wallet=2)
    scene.decide(held)
    completion = scene.follower(Kind.COMPLETION, held, 1_000)
    scene.decide(completion)
    assert (second.posted_minor, second.held_minor) == (2_000, 0)
    scene.decide(scene.follower(Kind.REFUND, completion, 400))
    assert (second.posted_minor, scene.account.posted_minor) == (2_400, 10_000)
    scene.decide(scene.follower(Kind.REVERSAL, completion))
    assert (second.posted_minor, scene.account.posted_minor) == (3_000, 10_000)


def test_reversed_completion_is_held_again_and_may_be_repeated() -> None:
    scene = Scene()
    held = scene.operation(Kind.PRE_AUTHORIZATION, 1_000)
    scene.decide(held)
    hold = scene.hold_of(held)
    completion = scene.follower(Kind.COMPLETION, held, 600)
    scene.decide(completion)
    assert (hold.state, hold.held_minor, hold.captured_minor) == (HoldState.CAPTURED, 0, 600)
    scene.decide(scene.follower(Kind.REVERSAL, completion))
    assert (hold.state, hold.held_minor, hold.captured_minor) == (HoldState.PENDING, 600, 0)
    assert (scene.account.posted_minor, scene.account.held_minor) == (10_000, 600)


def test_tolerance_is_not_gained_again_by_reversing_the_completion() -> None:
    scene = Scene()
    scene.limit(capture_tolerance_percent=15)
    held = scene.operation(Kind.PRE_AUTHORIZATION, 1_000)
    scene.decide(held)
    for _ in range(3):
        assert (
            scene.decide(scene.follower(Kind.COMPLETION, held, 1_151)).reason
            == Reason.ORIGINAL_AMOUNT_EXCEEDED
        )
        completion = scene.follower(Kind.COMPLETION, held, 1_150)
        assert scene.decide(completion).reason == Reason.APPROVED
        assert scene.decide(scene.follower(Kind.REVERSAL, completion)).reason == Reason.APPROVED
        hold = scene.hold_of(held)
        assert (hold.authorized_minor, hold.held_minor) == (1_000, 1_000)


def test_reversed_forced_completion_holds_again_only_what_the_wallet_got_back() -> None:
    scene = Scene()
    held = scene.operation(Kind.PRE_AUTHORIZATION, 10_000)
    scene.decide(held)
    completion = scene.follower(Kind.COMPLETION, held, 12_000, is_advice=True)
    assert scene.decide(completion).postings[1] == Posting(SUSPENSE, SETTLEMENT, 2_000)
    # Other money came since.
    scene.account.posted_minor = 500
    scene.account.changed = False
    assert scene.decide(scene.follower(Kind.REVERSAL, completion, 1_500)).postings == (
        Posting(SETTLEMENT, SUSPENSE, 1_500),
    )
    assert (scene.account.held_minor, scene.hold_of(held).held_minor) == (0, 0)
    scene.decide(scene.follower(Kind.REVERSAL, completion))
    assert (scene.account.posted_minor, scene.account.held_minor) == (10_500, 10_000)
    assert scene.account.changed


def test_partial_reversal_of_a_hold_lessens_what_was_authorized() -> None:
    scene = Scene()
    scene.limit(capture_tolerance_percent=10)
    held = scene.operation(Kind.PRE_AUTHORIZATION, 1_000)
    scene.decide(held)
    assert scene.decide(scene.follower(Kind.REVERSAL, held, 600)).message.held_minor == 400
    assert scene.decide(scene.follower(Kind.COMPLETION, held, 441)).reason == Reason.ORIGINAL_AMOUNT_EXCEEDED
    assert scene.decide(scene.follower(Kind.COMPLETION, held, 440)).reason == Reason.APPROVED


@pytest.mark.parametrize("kind", [Kind.VOID, Kind.REVERSAL])
def test_released_hold_gives_back_its_amount_and_its_count(kind: Kind) -> None:
    scene = Scene()
    held = scene.operation(Kind.PRE_AUTHORIZATION, 1_000)
    scene.decide(held)
    assert usage_of(scene, HELD) == (1, 1, 1_000, 1_000)
    scene.decide(scene.follower(kind, held))
    assert usage_of(scene, HELD) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", [Kind.VOID, Kind.REVERSAL])
def test_hold_that_was_completed_in_part_keeps_its_count(kind: Kind) -> None:
    scene = Scene()
    held = scene.operation(Kind.PRE_AUTHORIZATION, 1_000)
    scene.decide(held)
    scene.decide(scene.follower(Kind.COMPLETION, held, 400, more_completions_follow=True))
    scene.decide(scene.follower(kind, held))
    assert usage_of(scene, HELD) == (1, 1, 400, 400)
    assert scene.hold_of(held).state is HoldState.CAPTURED


def test_reversed_increment_gives_its_use_back() -> None:
    scene = Scene()
    held = scene.operation(Kind.PRE_AUTHORIZATION, 1_000)
    scene.decide(held)
    more = scene.follower(Kind.INCREMENT, held, 500)
    scene.decide(more)
    assert usage_of(scene, HELD) == (2, 2, 1_500, 1_500)
    scene.decide(scene.follower(Kind.REVERSAL, more))
    assert usage_of(scene, HELD) == (1, 1, 1_000, 1_000)
    assert scene.hold_of(held).authorized_minor == scene.hold_of(held).held_minor == 1_000


@pytest.mark.parametrize("kind", [Kind.VOID, Kind.REVERSAL])
def test_undone_purchase_gives_its_use_back_and_a_refunded_one_does_not(kind: Kind) -> None:
    scene = Scene()
    purchase = scene.operation(Kind.PURCHASE, 1_000)
    scene.decide(purchase)
    scene.decide(scene.follower(kind, purchase))
    assert usage_of(scene, Channel.CHIP) == (0, 0, 0, 0)
    second = scene.operation(Kind.PURCHASE, 1_000)
    scene.decide(second)
    scene.decide(scene.follower(Kind.REFUND, second, 1_000))
    assert usage_of(scene, Channel.CHIP) == (1, 1, 1_000, 1_000)


def test_money_conserved_in_every_posting_of_a_reversed_transfer() -> None:
    scene = Scene()
    transfer = scene.operation(Kind.TRANSFER, 1_000)
    scene.decide(transfer)
    receiver = scene.accounts[FINANCIAL + 1]
    receiver.posted_minor = 700
    outcome = scene.decide(scene.follower(Kind.REVERSAL, transfer, other_facts=scene.other_facts))
    assert outcome.postings == (
        Posting(receiver.account_id, FINANCIAL, 700),
        Posting(SUSPENSE, FINANCIAL, 300),
    )
    assert (scene.account.posted_minor, receiver.posted_minor) == (10_000, 0)


def test_reversed_transfer_must_repeat_the_card_that_money_went_to() -> None:
    scene = Scene()
    transfer = scene.operation(Kind.TRANSFER, 1_000)
    scene.decide(transfer)
    stranger = scene.other_facts._replace(card_id=99, account_id=9_000_000)  # type: ignore[union-attr]
    for facts in (None, stranger):
        outcome = scene.decide(scene.follower(Kind.REVERSAL, transfer, other_facts=facts))
        assert (outcome.reason, outcome.postings) == (Reason.ORIGINAL_NOT_ELIGIBLE, ())
    assert scene.account.posted_minor == 9_000
