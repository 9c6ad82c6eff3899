"""Reversals: an operation is undone whether or not it took place, in whatever order the two arrive."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from books import broken_rules, hold_of, postings_of, wallet_of
from core_under_test import OPENING_BALANCE_MINOR as OPENING
from core_under_test import Caller, Core, changed, deposit, loss_report, new_id, purchase, refusal_of
from money_requests import (
    APPROVED,
    PURCHASE,
    approved,
    benefit_credit,
    by_rrn,
    by_stan,
    card_holding,
    cash_withdrawal,
    completion,
    decision,
    declined,
    increment,
    pre_authorization,
    refund,
    reversal,
    tap,
    void,
)
from onecard.v1 import authorization_pb2 as pb

from server.cards.rules import CardStatus
from server.database.statements import load

EXCEPTIONS = load("server.settlement")["list_exceptions"]
PARKED = ("00", "REVERSAL_PARKED")
IN_ADVANCE = ("05", "REVERSED_IN_ADVANCE")
UNDONE = ("94", "ORIGINAL_ALREADY_UNDONE")
NOT_FOUND = ("25", "ORIGINAL_NOT_FOUND")
NOT_ELIGIBLE = ("12", "ORIGINAL_NOT_ELIGIBLE")
EXCEEDED = ("64", "ORIGINAL_AMOUNT_EXCEEDED")
BEGINNINGS: dict[str, Callable[..., Any]] = {
    "purchase": purchase,
    "tap": tap,
    "cash": cash_withdrawal,
    "hold": pre_authorization,
    "deposit": deposit,
    "benefit": benefit_credit,
}


@pytest.mark.parametrize("name", BEGINNINGS)
async def test_reversal_of_each_kind_undoes_it_once(
    core: Core, bank: Caller, no_pin_asked: None, name: str
) -> None:
    card = core.card()
    request = BEGINNINGS[name](card, 1_000)
    await approved(bank, request)
    undo = reversal(card, request)
    response = await approved(bank, undo)
    assert (response.approved_minor, response.available_minor) == (1_000, 0)
    assert await wallet_of(core, card) == (OPENING, 0)
    assert await declined(bank, reversal(card, request)) == UNDONE
    taken = await postings_of(core, request)
    assert await postings_of(core, undo) == [(credit, debit, amount) for debit, credit, amount in taken]


@pytest.mark.parametrize("name", [name for name in BEGINNINGS if name != "hold"])
async def test_reversals_in_parts_never_pass_the_whole(
    core: Core, bank: Caller, no_pin_asked: None, name: str
) -> None:
    card = core.card()
    request = BEGINNINGS[name](card, 1_000)
    await approved(bank, request)
    await approved(bank, reversal(card, request, 400))
    assert await declined(bank, reversal(card, request, 601)) == EXCEEDED
    response = await approved(bank, reversal(card, request))
    assert response.approved_minor == 600
    assert await wallet_of(core, card) == (OPENING, 0)
    assert await declined(bank, reversal(card, request, 1)) == UNDONE


async def test_hold_is_reversed_in_parts_and_may_still_be_completed(core: Core, bank: Caller) -> None:
    card = core.card()
    held = pre_authorization(card, 1_000)
    await approved(bank, held)
    assert (await approved(bank, reversal(card, held, 400))).held_minor == 600
    assert await declined(bank, reversal(card, held, 601)) == EXCEEDED
    await approved(bank, completion(card, held, 600, more_completions_follow=True))
    assert await declined(bank, reversal(card, held)) == NOT_ELIGIBLE
    assert await hold_of(core, held) == ("CAPTURED", 0, 600)


async def test_follow_ups_are_reversed_too(core: Core, bank: Caller) -> None:
    card = core.card()
    held, bought = pre_authorization(card, 1_000), purchase(card, 500)
    more, done = increment(card, held, 200), completion(card, held, 700)
    for request in (held, bought, more):
        await approved(bank, request)
    assert (await approved(bank, reversal(card, more))).held_minor == 1_000
    await approved(bank, done)
    await approved(bank, reversal(card, done))
    # The completion may come again: the money is held.
    assert await hold_of(core, held) == ("PENDING", 700, 0)
    back = refund(card, bought, 300)
    await approved(bank, back)
    await approved(bank, reversal(card, back))
    assert await wallet_of(core, card) == (OPENING - 500, 700)
    # What was taken back of the refund can be refunded again.
    await approved(bank, refund(card, bought, 500))
    undone = purchase(card, 100)
    await approved(bank, undone)
    gone = void(card, undone)
    await approved(bank, gone)
    await approved(bank, reversal(card, gone))
    assert await wallet_of(core, card) == (OPENING - 100, 700)


async def test_reversal_and_void_of_a_hold_are_not_reversed(core: Core, bank: Caller) -> None:
    card = core.card()
    bought, held = purchase(card), pre_authorization(card)
    undo, gone = reversal(card, bought), void(card, held)
    for request in (bought, held, undo, gone):
        await approved(bank, request)
    for request in (undo, gone):
        assert await declined(bank, reversal(card, request)) == NOT_ELIGIBLE
    assert await wallet_of(core, card) == (OPENING, 0)


async def test_declined_original_is_nothing_to_undo_and_that_is_approved(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 100)
    poor = purchase(card, 101)
    assert (await declined(bank, poor))[0] == "51"
    for _ in range(2):
        undo = reversal(card, poor)
        assert (await approved(bank, undo)).approved_minor == 0
        assert await postings_of(core, undo) == []
    # Unknown cards too: there is nothing to undo on them.
    stranger = core.unissued_card()
    unknown = purchase(stranger, 1)
    assert (await declined(bank, unknown))[0] == "14"
    await approved(bank, reversal(stranger, unknown))


@pytest.mark.parametrize("named", ["request id", "stan", "both"])
@pytest.mark.parametrize("name", BEGINNINGS)
async def test_reversal_before_its_original_declines_it_when_it_comes(
    core: Core, bank: Caller, no_pin_asked: None, name: str, named: str
) -> None:
    card = core.card()
    late = BEGINNINGS[name](card, 1_000)
    reference = {
        "request id": pb.OriginalReference(request_id=late.request_id),
        "stan": by_stan(late),
        "both": by_stan(late, request_id=late.request_id),
    }[named]
    assert decision(await bank.authorize(reversal(card, late, original=reference))) == PARKED
    assert await wallet_of(core, card) == (OPENING, 0)
    first = await bank.authorize(late)
    assert decision(first) == IN_ADVANCE
    assert await core.caller().authorize(late) == first
    assert await wallet_of(core, card) == (OPENING, 0)
    assert await declined(bank, reversal(card, late, original=reference)) == UNDONE


async def test_reversal_of_an_unknown_original_is_parked_and_listed(core: Core, bank: Caller) -> None:
    card = core.card()
    undo = reversal(card, purchase(card), 1_000)
    response = await bank.authorize(undo)
    assert decision(response) == PARKED
    assert len(response.authorization_code) == 6
    operation_id, business_date = await core.database.fetchrow(
        "SELECT operation_id, business_date FROM operations WHERE request_id = $1", undo.request_id
    )
    listed = await core.database.fetch(EXCEPTIONS, business_date, "bank-01", 10_000)
    assert [row["reason"] for row in listed if row["operation_id"] == operation_id] == [17]
    # Also without a card: the original may have been on one that nobody knows.
    stranger = core.unissued_card()
    assert decision(await bank.authorize(reversal(stranger, purchase(stranger)))) == PARKED


async def test_rrn_that_names_nothing_is_declined_25(core: Core, bank: Caller) -> None:
    card = core.card()
    nothing = pb.OriginalReference(rrn="999999999999")
    assert await declined(bank, reversal(card, purchase(card), original=nothing)) == NOT_FOUND
    bought = purchase(card, 700)
    response = await approved(bank, bought)
    await approved(bank, reversal(card, bought, original=by_rrn(response)))
    assert await wallet_of(core, card) == (OPENING, 0)


async def test_original_of_another_card_or_participant_is_not_touched(
    core: Core, bank: Caller, other_bank: Caller
) -> None:
    card, other = core.card(), core.card()
    bought = purchase(card, 700, terminal_id="REV-1")
    response = await approved(bank, bought)
    for reference in ({}, {"original": by_rrn(response)}):
        assert await declined(bank, reversal(other, bought, **reference)) == NOT_FOUND
        assert await declined(other_bank, reversal(card, bought, **reference)) == NOT_FOUND
    # A STAN is its acquirer's own: this one names an original of the other bank that has not come.
    named = by_stan(bought, terminal_id="REV-1")
    assert decision(await other_bank.authorize(reversal(card, bought, original=named))) == PARKED
    assert await wallet_of(core, card) == (OPENING - 700, 0)
    assert await bank.authorize(bought) == response


async def test_place_kept_for_a_late_original_is_its_callers_own(
    core: Core, bank: Caller, other_bank: Caller
) -> None:
    card = core.card()
    late = purchase(card, 700)
    assert decision(await other_bank.authorize(reversal(card, late))) == PARKED
    refusal = await refusal_of(bank.authorize(late))
    assert (refusal.reason, refusal.field) == ("REQUEST_ID_REUSED", "caller")
    await approved(bank, changed(late, request_id=new_id()))


async def test_reversal_whose_request_id_is_unknown_and_whose_stan_is_used_is_parked(
    core: Core, bank: Caller
) -> None:
    card, other = core.card(), core.card()
    bought = purchase(card, 700, terminal_id="REV-2")
    response = await approved(bank, bought)
    for holder in (card, other):
        late = changed(bought, request_id=new_id())
        named = by_stan(bought, request_id=late.request_id, terminal_id="REV-2")
        assert decision(await bank.authorize(reversal(holder, late, original=named))) == PARKED
        assert decision(await bank.authorize(late)) == IN_ADVANCE
    assert await bank.authorize(bought) == response
    assert await wallet_of(core, card) == (OPENING - 700, 0)
    assert len(await _of_kind(core, card, PURCHASE)) == 1


async def _of_kind(core: Core, card: Any, kind: int) -> list[Any]:
    statement = "SELECT 1 FROM operations WHERE card_id = $1 AND operation_kind = $2"
    return await core.database.fetch(statement, await core.card_id(card), kind)


async def test_reversal_of_another_date_keeps_no_stan_of_today(core: Core, bank: Caller) -> None:
    card = core.card()
    today = purchase(card, 700, terminal_id="REV-3")
    named = by_stan(today, terminal_id="REV-3", business_date="20250101")
    assert decision(await bank.authorize(reversal(card, today, original=named))) == PARKED
    await approved(bank, today)


async def test_reversal_is_decided_whatever_became_of_the_card(core: Core, bank: Caller) -> None:
    card = core.card()
    first, second = purchase(card, 300), purchase(card, 400)
    await approved(bank, first)
    await approved(bank, second)
    await bank.cards.ReportLoss(loss_report(card), timeout=20)
    await approved(bank, reversal(card, first))
    await core.set_status(card, CardStatus.CANCELLED)
    await approved(bank, reversal(card, second))
    assert await wallet_of(core, card) == (OPENING, 0)


async def test_money_that_was_spent_is_owed_by_the_participant_that_takes_it_back(
    core: Core, bank: Caller
) -> None:
    card = await card_holding(core, bank, 0)
    paid_in = deposit(card, 1_000)
    await approved(bank, paid_in)
    await approved(bank, purchase(card, 700))
    undo = reversal(card, paid_in)
    await approved(bank, undo)
    assert await postings_of(core, undo) == [
        ("wallet-1", "settlement", 300),
        ("suspense", "settlement", 700),
    ]
    assert await wallet_of(core, card) == (0, 0)


async def test_reversal_cannot_name_itself(core: Core, bank: Caller) -> None:
    card = core.card()
    request_id = new_id()
    itself = pb.OriginalReference(request_id=request_id)
    request = reversal(card, purchase(card), request_id=request_id, original=itself)
    refusal = await refusal_of(bank.authorize(request))
    assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", "original.request_id")


async def test_chain_of_reversals_in_one_frame_sees_itself(core: Core, bank: Caller) -> None:
    card = core.card()
    early, late = purchase(card, 100), purchase(card, 200)
    again = changed(late, request_id=new_id(), chip=card.sign(200))
    frame = [
        early,
        reversal(card, early, 60),
        reversal(card, early, 60),
        reversal(card, early),
        reversal(card, late, original=by_stan(late, request_id=late.request_id)),
        late,
        again,
        reversal(card, late),
        reversal(card, late, original=by_stan(late)),
    ]
    (answer,) = await bank.frames(frame)
    assert [decision(result.response) for result in answer.results] == [
        *(APPROVED, APPROVED, EXCEEDED, APPROVED),
        *(PARKED, IN_ADVANCE, IN_ADVANCE, UNDONE, UNDONE),
    ]
    assert await wallet_of(core, card) == (OPENING, 0)


@pytest.mark.parametrize("named", ["request id", "stan"])
async def test_reversal_and_original_at_two_workers_at_once_leave_the_same_money(
    core: Core, named: str
) -> None:
    callers = [core.caller() for _ in range(4)]

    async def race(number: int) -> tuple[tuple[str, str], ...]:
        card = core.card()
        request = purchase(card, 1_000)
        reference = {} if named == "request id" else {"original": by_stan(request)}
        first, second = callers[number % 4], callers[(number + 1) % 4]
        answers = await asyncio.gather(
            first.authorize(request), second.authorize(reversal(card, request, **reference))
        )
        assert await wallet_of(core, card) == (OPENING, 0)
        return tuple(decision(answer) for answer in answers)

    outcomes = set(await asyncio.gather(*(race(number) for number in range(50))))
    assert outcomes <= {(APPROVED, APPROVED), (IN_ADVANCE, PARKED)}
    assert await broken_rules(core) == {}


async def test_two_reversals_at_two_workers_at_once_undo_once(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]

    async def race(number: int) -> list[int]:
        card = core.card()
        request = purchase(card, 1_000)
        await approved(callers[number % 4], request)
        amounts = (600, 600) if number % 2 else (0, 0)
        answers = await asyncio.gather(
            *(callers[(number + n) % 4].authorize(reversal(card, request, a)) for n, a in enumerate(amounts))
        )
        given = sorted(answer.approved_minor for answer in answers)
        assert await wallet_of(core, card) == (OPENING - 1_000 + sum(given), 0)
        return given

    outcomes = await asyncio.gather(*(race(number) for number in range(40)))
    assert outcomes == [[0, 600] if number % 2 else [0, 1_000] for number in range(40)]
