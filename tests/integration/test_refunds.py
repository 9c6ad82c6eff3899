"""Refunds and voids: what is given back never passes what was taken, and comes once."""

import asyncio

import asyncpg
import pytest
from books import broken_rules, hold_of, postings_of, wallet_of
from core_under_test import OPENING_BALANCE_MINOR as OPENING
from core_under_test import Caller, Core, deposit, loss_report, purchase
from money_requests import (
    APPROVED,
    approved,
    by_rrn,
    by_stan,
    card_holding,
    cash_withdrawal,
    completion,
    decision,
    declined,
    pre_authorization,
    refund,
    reversal,
    tap,
    void,
)
from onecard.v1 import authorization_pb2 as pb

from server.cards.rules import CardStatus

NOT_FOUND = ("25", "ORIGINAL_NOT_FOUND")
NOT_ELIGIBLE = ("12", "ORIGINAL_NOT_ELIGIBLE")
UNDONE = ("94", "ORIGINAL_ALREADY_UNDONE")
EXCEEDED = ("64", "ORIGINAL_AMOUNT_EXCEEDED")


async def test_refunds_in_parts_never_pass_what_was_taken(core: Core, bank: Caller) -> None:
    card = core.card()
    bought = purchase(card, 1_000)
    await approved(bank, bought)
    first = refund(card, bought, 300)
    response = await approved(bank, first)
    # No card proved itself.
    assert (response.approved_minor, response.available_minor, response.arpc) == (300, 0, b"")
    assert await postings_of(core, first) == [("settlement", "wallet-1", 300)]
    assert await declined(bank, refund(card, bought, 701)) == EXCEEDED
    await approved(bank, refund(card, bought, 700))
    assert await wallet_of(core, card) == (OPENING, 0)
    assert await declined(bank, refund(card, bought, 1)) == UNDONE


async def test_what_may_be_refunded_and_what_may_be_voided(
    core: Core, bank: Caller, no_pin_asked: None
) -> None:
    card = core.card()

    async def done(kind: str) -> pb.AuthorizeRequest:
        held = pre_authorization(card, 100)
        requests = {
            "purchase": lambda: purchase(card),
            "tap": lambda: tap(card),
            "cash": lambda: cash_withdrawal(card),
            "deposit": lambda: deposit(card),
            "hold": lambda: held,
            "completion": lambda: completion(card, held, 100),
        }
        if kind == "completion":
            await approved(bank, held)
        request = requests[kind]()
        await approved(bank, request)
        return request

    expected = {
        "purchase": (APPROVED, APPROVED),
        "tap": (APPROVED, APPROVED),
        "completion": (APPROVED, APPROVED),
        "cash": (NOT_ELIGIBLE, APPROVED),
        "deposit": (NOT_ELIGIBLE, NOT_ELIGIBLE),
        "hold": (NOT_ELIGIBLE, APPROVED),
    }
    found = {}
    for kind in expected:
        refunded = await bank.authorize(refund(card, await done(kind), 1))
        voided = await bank.authorize(void(card, await done(kind)))
        found[kind] = decision(refunded), decision(voided)
    assert found == expected


async def test_void_undoes_whole_and_once(core: Core, bank: Caller) -> None:
    card = core.card()
    bought = purchase(card, 1_000)
    await approved(bank, bought)
    undone = void(card, bought)
    response = await approved(bank, undone)
    assert response.approved_minor == 1_000
    assert await postings_of(core, undone) == [("settlement", "wallet-1", 1_000)]
    assert await wallet_of(core, card) == (OPENING, 0)
    for again in (void(card, bought), refund(card, bought, 1), reversal(card, bought)):
        assert await declined(bank, again) == UNDONE


async def test_partly_refunded_purchase_cannot_be_voided(core: Core, bank: Caller) -> None:
    card = core.card()
    bought = purchase(card, 1_000)
    await approved(bank, bought)
    await approved(bank, refund(card, bought, 1))
    assert await declined(bank, void(card, bought)) == NOT_ELIGIBLE
    assert await wallet_of(core, card) == (OPENING - 999, 0)


async def test_original_is_named_by_rrn_or_stan_of_its_terminal_and_date(core: Core, bank: Caller) -> None:
    card = core.card()
    bought = purchase(card, 1_000, terminal_id="REFUND-1")
    response = await approved(bank, bought)
    at_counter = {"terminal_id": "REFUND-2"}
    for reference in (
        by_rrn(response),
        by_stan(bought, terminal_id="REFUND-1"),
        by_stan(bought, terminal_id="REFUND-1", business_date=response.business_date, mti_class=0),
    ):
        await approved(bank, refund(card, bought, 1, original=reference, **at_counter))
    await approved(bank, refund(card, bought, 1, original=by_stan(bought), terminal_id="REFUND-1"))
    for wrong in (
        by_stan(bought),
        by_stan(bought, terminal_id="REFUND-1", mti_class=1),
        by_stan(bought, terminal_id="REFUND-1", business_date="20250101"),
        by_stan(bought, terminal_id="REFUND-1", stan=999_999),
        type(by_stan(bought))(rrn="999999999999"),
        type(by_stan(bought))(rrn="000000000000"),
    ):
        assert await declined(bank, refund(card, bought, 1, original=wrong, **at_counter)) == NOT_FOUND
    assert await wallet_of(core, card) == (OPENING - 996, 0)


async def test_request_id_names_the_original_before_rrn_and_stan(core: Core, bank: Caller) -> None:
    card = core.card()
    first, second = purchase(card, 100), purchase(card, 200)
    responses = [await approved(bank, request) for request in (first, second)]
    both = by_stan(second, request_id=first.request_id, rrn=responses[1].rrn)
    assert await declined(bank, refund(card, first, 101, original=both)) == EXCEEDED
    by_number = by_stan(first, rrn=responses[1].rrn)
    await approved(bank, refund(card, first, 101, original=by_number))


async def test_original_of_another_card_or_participant_is_not_found(
    core: Core, bank: Caller, other_bank: Caller
) -> None:
    card, other = core.card(), core.card()
    bought = purchase(card, 100)
    response = await approved(bank, bought)
    for reference in ({}, {"original": by_rrn(response)}, {"original": by_stan(bought)}):
        assert await declined(bank, refund(other, bought, 1, **reference)) == NOT_FOUND
        assert await declined(other_bank, refund(card, bought, 1, **reference)) == NOT_FOUND
        assert await declined(other_bank, void(card, bought, **reference)) == NOT_FOUND
    assert await wallet_of(core, card) == (OPENING - 100, 0)


async def test_declined_purchase_cannot_be_refunded(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 100)
    poor = purchase(card, 101)
    assert await declined(bank, poor) == ("51", "INSUFFICIENT_FUNDS")
    assert await declined(bank, refund(card, poor, 1)) == NOT_ELIGIBLE
    assert await declined(bank, void(card, poor)) == NOT_ELIGIBLE


async def test_money_comes_back_to_a_lost_card_and_not_to_a_cancelled_one(core: Core, bank: Caller) -> None:
    card = core.card()
    bought = purchase(card, 100)
    await approved(bank, bought)
    await bank.cards.ReportLoss(loss_report(card), timeout=20)
    await approved(bank, refund(card, bought, 60))
    await core.set_status(card, CardStatus.CANCELLED)
    assert await declined(bank, refund(card, bought, 1)) == ("14", "CARD_CANCELLED")
    assert await declined(bank, void(card, bought)) == ("14", "CARD_CANCELLED")
    assert await wallet_of(core, card) == (OPENING - 40, 0)


async def test_refunds_at_once_at_two_workers_never_pass_what_was_taken(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]

    async def race(number: int) -> int:
        card = core.card()
        bought = purchase(card, 1_000)
        await approved(callers[number % 4], bought)
        rivals = [refund(card, bought, 400) for _ in range(4)] + [void(card, bought)]
        answers = await asyncio.gather(
            *(callers[(number + n) % 4].authorize(rival) for n, rival in enumerate(rivals))
        )
        given = sum(answer.approved_minor for answer in answers)
        assert await wallet_of(core, card) == (OPENING - 1_000 + given, 0)
        return given

    outcomes = await asyncio.gather(*(race(number) for number in range(30)))
    assert set(outcomes) <= {800, 1_000}
    assert await broken_rules(core) == {}


async def test_schema_refuses_to_give_back_more_than_was_taken(core: Core, bank: Caller) -> None:
    card = core.card()
    bought = purchase(card, 1_000)
    await approved(bank, bought)
    await approved(bank, refund(card, bought, 400))
    where = " WHERE operation_id = (SELECT operation_id FROM operations WHERE request_id = $1)"
    for change, constraint in (
        ("reversed_minor = 601", "adjustments_bounded"),
        ("refunded_minor = 1001", "adjustments_bounded"),
        ("reversed_minor = -1", "adjustments_not_negative"),
    ):
        with pytest.raises(asyncpg.CheckViolationError) as raised:
            await core.database.execute(f"UPDATE adjustments SET {change}{where}", bought.request_id)
        assert raised.value.constraint_name == constraint


async def test_purchase_and_its_refund_in_one_frame_in_both_orders(core: Core, bank: Caller) -> None:
    card = core.card()
    bought = purchase(card, 1_000)
    parts = [refund(card, bought, 600), refund(card, bought, 600), refund(card, bought, 400)]
    (answer,) = await bank.frames([bought, *parts])
    assert [decision(r.response) for r in answer.results] == [APPROVED, APPROVED, EXCEEDED, APPROVED]
    later = purchase(card, 1_000)
    # Unlike a reversal, a refund does not wait for what comes later.
    (answer,) = await bank.frames([refund(card, later, 1), later])
    assert [decision(r.response) for r in answer.results] == [NOT_FOUND, APPROVED]
    assert await wallet_of(core, card) == (OPENING - 1_000, 0)


async def test_voided_completion_gives_back_and_its_hold_stays_completed(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 1_000)
    await approved(bank, held)
    done = completion(card, held, 1_000)
    await approved(bank, done)
    await approved(bank, void(card, done))
    assert await wallet_of(core, card) == (OPENING, 0)
    assert (await hold_of(core, held))[0] == "CAPTURED"
    assert await declined(bank, completion(card, held, 1)) == ("12", "HOLD_NOT_PENDING")
