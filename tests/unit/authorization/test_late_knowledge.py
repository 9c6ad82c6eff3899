"""What a caller cannot know must not cost the holder: lost answers, partial approvals, the cut-off."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from money_scene import CARD, Scene

from server.authorization.operations import OriginalKey
from server.authorization.originals import LATE_REVERSAL_MAX
from server.authorization.rules import Reason
from server.authorization.usage import Usage
from server.cards.rules import CardStatus
from server.engine.operation import OperationKind as Kind
from server.rulebook.rules import Channel


def by_stan(scene: Scene, key: bytes) -> Any:
    original = OriginalKey(
        request_id=None,
        operation_id=None,
        stan=7,
        mti_class=2,
        terminal_id="T1",
        switch_key=key,
        business_date=None,
    )
    return scene.operation(Kind.REVERSAL, 0, original=original)


def test_reversal_of_a_partial_approval_may_state_what_was_asked_for() -> None:
    scene = Scene()
    purchase = scene.operation(Kind.PURCHASE, 12_000, partial_approval_allowed=True)
    assert scene.decide(purchase).approved_minor == 10_000
    reversal = scene.decide(scene.follower(Kind.REVERSAL, purchase, 12_000))
    assert (reversal.reason, reversal.approved_minor) == (Reason.APPROVED, 10_000)
    assert scene.account.posted_minor == 10_000


def test_reversal_of_a_whole_approval_may_not_state_more() -> None:
    scene = Scene()
    purchase = scene.operation(Kind.PURCHASE, 1_000)
    scene.decide(purchase)
    reversal = scene.decide(scene.follower(Kind.REVERSAL, purchase, 1_001))
    assert reversal.reason == Reason.ORIGINAL_AMOUNT_EXCEEDED


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        (LATE_REVERSAL_MAX, Reason.APPROVED),
        (LATE_REVERSAL_MAX + timedelta(seconds=1), Reason.REVERSAL_PARKED),
    ],
)
def test_reversal_by_stan_just_after_the_cut_off_finds_its_original(since: timedelta, reason: Reason) -> None:
    scene = Scene()
    purchase = scene.operation(Kind.PURCHASE, 1_000)
    scene.decide(purchase)
    original = scene.original_of(purchase)
    key = original.switch_key
    assert key is not None
    original.business_date -= timedelta(days=1)
    original.decided_at = scene.batch.now - since
    scene.originals = type(scene.originals)(are_followed=True)
    scene.originals.add(original)
    scene.batch.facts = {scene.capability: scene.originals}
    outcome = scene.decide(by_stan(scene, key))
    assert outcome.reason == reason
    assert scene.account.posted_minor == (10_000 if reason is Reason.APPROVED else 9_000)


def test_void_of_the_date_before_is_not_found_by_stan() -> None:
    scene = Scene()
    purchase = scene.operation(Kind.PURCHASE, 1_000)
    scene.decide(purchase)
    original = replace(scene.original_of(purchase), decided_at=scene.batch.now)
    original.business_date -= timedelta(days=1)
    scene.originals = type(scene.originals)(are_followed=True)
    scene.originals.add(original)
    scene.batch.facts = {scene.capability: scene.originals}
    assert original.switch_key is not None
    void = by_stan(scene, original.switch_key)
    void.kind = Kind.VOID
    assert scene.decide(void).reason == Reason.ORIGINAL_NOT_FOUND


def test_rrn_that_was_never_given_keeps_no_place_whatever_else_is_named() -> None:
    scene = Scene()
    reversal = by_stan(scene, bytes(16))
    reversal.original = replace(reversal.original, operation_id=999_999)
    assert scene.decide(reversal).reason == Reason.ORIGINAL_NOT_FOUND


def test_reversal_of_what_was_declined_for_an_unknown_card_is_accepted_when_the_card_is_known() -> None:
    scene = Scene()
    known_card, known_facts = scene.card, scene.facts
    scene.card = scene.facts = None
    purchase = scene.operation(Kind.PURCHASE, 1_000)
    assert scene.decide(purchase).reason == Reason.UNKNOWN_CARD
    scene.card, scene.facts = known_card, known_facts
    reversal = scene.follower(Kind.REVERSAL, purchase)
    assert reversal.card_id == CARD
    outcome = scene.decide(reversal)
    assert (outcome.reason, outcome.approved_minor, outcome.postings) == (Reason.APPROVED, 0, ())


def test_undone_void_uses_the_limits_again() -> None:
    scene = Scene()
    purchase = scene.operation(Kind.PURCHASE, 1_000)
    scene.decide(purchase)
    scene.decide(scene.operation(Kind.PURCHASE, 3_000))
    for _ in range(3):
        void = scene.follower(Kind.VOID, purchase)
        assert scene.decide(void).reason == Reason.APPROVED
        assert scene.decide(scene.follower(Kind.REVERSAL, void)).reason == Reason.APPROVED
    assert scene.card is not None
    used = Usage(scene.card.usage, scene.batch.business_date).of(Channel.CHIP)
    assert used == (2, 2, 4_000, 4_000)
    assert scene.account.posted_minor == 6_000


@pytest.mark.parametrize("switch_key_holder", [None, Kind.PURCHASE])
def test_replayed_cryptogram_tells_no_balance(switch_key_holder: Kind | None) -> None:
    scene = Scene()
    assert scene.decide(scene.operation(Kind.PURCHASE, 1_000)).message.available_minor == 9_000
    scene.atc = 1
    scene.switch_key_holder = switch_key_holder
    replayed = scene.decide(scene.operation(Kind.PURCHASE, 1_000))
    expected = Reason.ATC_REPLAYED if switch_key_holder is None else Reason.DUPLICATE_TRANSMISSION
    assert (replayed.reason, replayed.message.available_minor) == (expected, 0)


@pytest.mark.parametrize("status", [CardStatus.LOST, CardStatus.TEMPORARILY_LOST, CardStatus.CANCELLED])
def test_card_that_was_found_tells_no_balance(status: CardStatus) -> None:
    scene = Scene()
    assert scene.card is not None
    scene.card.status = status
    assert scene.decide(scene.operation(Kind.BALANCE_INQUIRY, 0)).message.available_minor == 0
