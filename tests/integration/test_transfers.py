"""Transfers: both cards are decided at once, and a reversal takes back what is still there."""

import asyncio

import pytest
from books import broken_rules, postings_of, wallet_of
from core_under_test import OPENING_BALANCE_MINOR as OPENING
from core_under_test import Caller, Core, loss_report, purchase, refusal_of
from money_requests import (
    APPROVED,
    approved,
    card_holding,
    decision,
    declined,
    refund,
    reversal,
    transfer,
    void,
)
from rules_in_force import rule

from server.cards.rules import CardStatus

pytestmark = pytest.mark.usefixtures("no_pin_asked")
UNAVAILABLE = ("14", "DESTINATION_UNAVAILABLE")


async def test_transfer_moves_money_from_card_to_card(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    request = transfer(card, other, 2_500)
    response = await approved(bank, request)
    assert (response.approved_minor, response.available_minor) == (2_500, OPENING - 2_500)
    assert card.accepts(request.chip, arpc=response.arpc, response_code="00")
    assert await postings_of(core, request) == [("wallet-1", "wallet-1", 2_500)]
    assert await wallet_of(core, card) == (OPENING - 2_500, 0)
    assert await wallet_of(core, other) == (OPENING + 2_500, 0)


async def test_transfer_goes_to_a_card_of_another_region_than_granted(core: Core) -> None:
    sender, receiver = core.card(), core.card()
    while not sender.facts.issuing_region.startswith("3601"):
        sender = core.card()
    while receiver.facts.issuing_region.startswith("3601"):
        receiver = core.card()
    nanchang = core.caller("nanchang-01")
    await approved(nanchang, transfer(sender, receiver, 100))
    refusal = await refusal_of(nanchang.authorize(transfer(receiver, sender, 100)))
    assert refusal.code.name == "PERMISSION_DENIED"


@pytest.mark.parametrize("status", [s for s in CardStatus if s is not CardStatus.NORMAL])
async def test_card_not_in_use_receives_nothing(core: Core, bank: Caller, status: CardStatus) -> None:
    card, other = core.card(), core.card()
    await core.set_status(other, status)
    assert await declined(bank, transfer(card, other, 100)) == UNAVAILABLE
    assert await wallet_of(core, card) == await wallet_of(core, other) == (OPENING, 0)


async def test_unknown_and_expired_cards_receive_nothing(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    await core.database.execute(
        "UPDATE cards SET expires_on = '2020-01-01' WHERE card_id = $1", await core.card_id(other)
    )
    assert await declined(bank, transfer(card, other, 100)) == UNAVAILABLE
    assert await declined(bank, transfer(card, core.unissued_card(), 100)) == UNAVAILABLE
    # What is wrong with the sender comes first.
    await bank.cards.ReportLoss(loss_report(card), timeout=20)
    assert await declined(bank, transfer(card, other, 100)) == ("41", "CARD_LOST")


async def test_transfer_is_declined_for_want_of_money_and_above_its_limits(core: Core, bank: Caller) -> None:
    card, other = await card_holding(core, bank, 1_000), core.card()
    assert await declined(bank, transfer(card, other, 1_001)) == ("51", "INSUFFICIENT_FUNDS")
    async with rule(core, "limit", "transfer", transaction_amount_max_minor=500):
        assert await declined(bank, transfer(card, other, 501)) == ("61", "TRANSACTION_AMOUNT_LIMIT")
        await approved(bank, transfer(card, other, 500))
    assert await wallet_of(core, other) == (OPENING + 500, 0)


async def test_transfer_to_itself_and_to_nobody_is_refused_by_name(core: Core, bank: Caller) -> None:
    card = core.card()
    for request in (transfer(card, card), transfer(card, card, to_pan="")):
        refusal = await refusal_of(bank.authorize(request))
        assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", "to_pan")
    refusal = await refusal_of(bank.authorize(purchase(card, to_pan=core.card().pan)))
    assert refusal.field == "to_pan"


async def test_reversed_transfer_takes_back_what_is_there_and_the_rest_from_suspense(
    core: Core, bank: Caller
) -> None:
    card, other = core.card(), await card_holding(core, bank, 0)
    request = transfer(card, other, 1_000)
    await approved(bank, request)
    await approved(bank, reversal(card, request, 100))
    await approved(bank, purchase(other, 600))
    undo = reversal(card, request)
    await approved(bank, undo)
    assert await postings_of(core, undo) == [
        ("wallet-1", "wallet-1", 300),
        ("suspense", "wallet-1", 600),
    ]
    assert await wallet_of(core, card) == (OPENING, 0)
    assert await wallet_of(core, other) == (0, 0)
    assert await declined(bank, reversal(card, request)) == ("94", "ORIGINAL_ALREADY_UNDONE")


async def test_reversal_must_repeat_the_card_that_money_went_to(core: Core, bank: Caller) -> None:
    card, other, third = core.card(), core.card(), core.card()
    request = transfer(card, other, 1_000)
    await approved(bank, request)
    for to_pan in ("", third.pan):
        wrong = reversal(card, request, to_pan=to_pan)
        assert await declined(bank, wrong) == ("12", "ORIGINAL_NOT_ELIGIBLE")
    for make in (refund, void):
        arguments = (100,) if make is refund else ()
        assert await declined(bank, make(card, request, *arguments)) == ("12", "ORIGINAL_NOT_ELIGIBLE")
    await approved(bank, reversal(card, request))
    assert await wallet_of(core, other) == (OPENING, 0)


async def test_reversal_before_its_transfer_declines_it(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    late = transfer(card, other, 1_000)
    assert decision(await bank.authorize(reversal(card, late))) == ("00", "REVERSAL_PARKED")
    assert decision(await bank.authorize(late)) == ("05", "REVERSED_IN_ADVANCE")
    assert await wallet_of(core, card) == await wallet_of(core, other) == (OPENING, 0)


async def test_transfers_to_and_fro_at_two_workers_at_once_lose_nothing_and_never_lock_up(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]
    cards = [core.card() for _ in range(4)]
    requests = [transfer(cards[n % 4], cards[(n + 1 + n // 4 % 3) % 4], 1 + n % 7) for n in range(200)]
    # A chip's counters must not fall behind the window: those of one card stay close together.
    answers = []
    for start in range(0, len(requests), 40):
        part = requests[start : start + 40]
        answers += await asyncio.gather(*(callers[n % 4].authorize(r) for n, r in enumerate(part)))
    assert {decision(answer) for answer in answers} == {APPROVED}
    assert sum([(await wallet_of(core, card))[0] for card in cards]) == 4 * OPENING
    assert await broken_rules(core) == {}
