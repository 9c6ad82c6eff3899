"""Advices tell what has happened: they are posted once, and flagged where the decision would have been another."""

import pytest
from books import flags_of, postings_of, wallet_of
from core_under_test import Caller, Core, changed, loss_report, new_id, purchase, refusal_of
from money_requests import (
    APPROVED,
    advice,
    approved,
    card_holding,
    completion,
    decision,
    declined,
    pre_authorization,
    refund,
    reversal,
    tap,
)
from rules_in_force import rule

from server.cards.rules import CardStatus

FORCED = ("00", "FORCED_POST")


async def test_advice_without_chip_is_approved_and_flagged_as_one(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 1_000)
    for make in (purchase, tap):
        request = advice(make, card, 100)
        response = await approved(bank, request)
        assert (response.approved_minor, response.available_minor, response.arpc) == (100, 0, b"")
        assert await flags_of(core, request) == 1
    online = purchase(card, 100)
    await approved(bank, online)
    assert await flags_of(core, online) is None
    assert await wallet_of(core, card) == (700, 0)


async def test_advice_with_chip_data_is_checked_and_answered(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 1_000)
    request = purchase(card, 100, is_advice=True)
    response = await approved(bank, request)
    assert card.accepts(request.chip, arpc=response.arpc, response_code="00")
    assert response.available_minor == 900
    again = changed(request, request_id=new_id(), stan=request.stan + 500_000)
    assert await declined(bank, again) == ("05", "ATC_REPLAYED")
    broken = purchase(card, 100, is_advice=True, chip=changed(card.sign(100), arqc=bytes(8)))
    assert await declined(bank, broken) == ("05", "CRYPTOGRAM_INVALID")


async def test_wrong_cryptogram_is_not_posted_on_a_lost_card_either(core: Core, bank: Caller) -> None:
    card = core.card()
    await bank.cards.ReportLoss(loss_report(card), timeout=20)
    broken = purchase(card, 100, is_advice=True, chip=changed(card.sign(100), arqc=bytes(8)))
    response = await bank.authorize(broken)
    assert decision(response) == ("05", "CRYPTOGRAM_INVALID")
    assert await postings_of(core, broken) == []


async def test_advice_beyond_the_money_is_forced_and_the_participant_has_to_collect_it(
    core: Core, bank: Caller
) -> None:
    card = await card_holding(core, bank, 300)
    request = advice(purchase, card, 1_000)
    response = await bank.authorize(request)
    assert (decision(response), response.approved_minor) == (FORCED, 1_000)
    assert await postings_of(core, request) == [
        ("wallet-1", "settlement", 300),
        ("suspense", "settlement", 700),
    ]
    assert await flags_of(core, request) == 3
    assert await wallet_of(core, card) == (0, 0)
    # What comes back repays the suspense account first.
    back = refund(card, request, 800)
    await approved(bank, back)
    assert await postings_of(core, back) == [
        ("settlement", "suspense", 700),
        ("settlement", "wallet-1", 100),
    ]
    await approved(bank, reversal(card, request))
    assert await wallet_of(core, card) == (300, 0)


@pytest.mark.parametrize("status", [s for s in CardStatus if s is not CardStatus.NORMAL])
async def test_advice_is_forced_over_the_status_of_the_card(
    core: Core, bank: Caller, status: CardStatus
) -> None:
    card = core.card()
    await core.set_status(card, status)
    assert decision(await bank.authorize(advice(purchase, card, 100))) == FORCED


async def test_advice_is_forced_over_limits_and_places(core: Core, bank: Caller) -> None:
    card = core.card()
    async with rule(core, "limit", "chip", transaction_amount_max_minor=1):
        assert decision(await bank.authorize(advice(purchase, card, 100))) == FORCED
    async with rule(core, "terminal", "bank-01/BLOCKED", is_blocked=True):
        assert decision(await bank.authorize(advice(purchase, card, 100, terminal_id="BLOCKED"))) == FORCED
    async with rule(core, "limit", "tap", pin_required_above_minor=0):
        # A PIN cannot be asked for any more.
        assert decision(await bank.authorize(advice(tap, card, 100))) == APPROVED
    assert decision(await bank.authorize(advice(purchase, card, 100, wallet=77))) == FORCED


async def test_advice_on_no_card_and_of_a_used_stan_is_not_posted(core: Core, bank: Caller) -> None:
    card = core.card()
    assert await declined(bank, advice(purchase, core.unissued_card(), 100)) == ("14", "UNKNOWN_CARD")
    first = advice(purchase, card, 100, terminal_id="ADVICE-1")
    await approved(bank, first)
    twin = changed(first, request_id=new_id())
    assert await declined(bank, twin) == ("94", "DUPLICATE_TRANSMISSION")


async def test_advice_after_its_reversal_is_not_posted(core: Core, bank: Caller) -> None:
    card = core.card()
    late = advice(purchase, card, 100)
    assert decision(await bank.authorize(reversal(card, late))) == ("00", "REVERSAL_PARKED")
    assert await declined(bank, late) == ("05", "REVERSED_IN_ADVANCE")


async def test_advised_completion_passes_the_hold_and_its_state_but_not_its_absence(
    core: Core, bank: Caller
) -> None:
    card = await card_holding(core, bank, 1_000)
    held = pre_authorization(card, 400)
    await approved(bank, held)
    above = advice(completion, card, held, 900)
    assert decision(await bank.authorize(above)) == FORCED
    assert await wallet_of(core, card) == (100, 0)
    again = advice(completion, card, held, 300)
    assert decision(await bank.authorize(again)) == FORCED
    assert await postings_of(core, again) == [
        ("wallet-1", "settlement", 100),
        ("suspense", "settlement", 200),
    ]
    nothing = advice(completion, card, purchase(card), 100)
    assert await declined(bank, nothing) == ("25", "ORIGINAL_NOT_FOUND")


async def test_advised_refund_reaches_a_cancelled_card_but_never_passes_the_original(
    core: Core, bank: Caller
) -> None:
    card = core.card()
    bought = purchase(card, 100)
    await approved(bank, bought)
    await core.set_status(card, CardStatus.CANCELLED)
    assert await declined(bank, advice(refund, card, bought, 101)) == ("64", "ORIGINAL_AMOUNT_EXCEEDED")
    assert decision(await bank.authorize(advice(refund, card, bought, 100))) == FORCED


async def test_advice_is_for_its_kinds_and_not_for_partial_approval(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card)
    for request in (advice(pre_authorization, card), advice(reversal, card, held)):
        assert (await refusal_of(bank.authorize(request))).field == "is_advice"
    both = advice(purchase, card, partial_approval_allowed=True)
    assert (await refusal_of(bank.authorize(both))).field == "partial_approval_allowed"
