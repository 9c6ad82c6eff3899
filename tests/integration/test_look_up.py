"""Looking up: the stored answer byte for byte, and what became of the operation, to its own participant only."""

from collections.abc import Awaitable
from typing import Any

import pytest
from core_under_test import CALL_S, Caller, Core, deposit, loss_report, new_id, purchase, refusal_of, without
from money_requests import (
    approved,
    benefit_credit,
    completion,
    increment,
    mti_class_of,
    pre_authorization,
    refund,
    reversal,
    tap,
    void,
)
from onecard.v1 import authorization_pb2 as pb


def look_up(caller: Caller, **key: Any) -> "Awaitable[pb.LookUpOperationResponse]":
    return caller.authorization.LookUpOperation(pb.LookUpOperationRequest(**key), timeout=CALL_S)


def switch_key(request: pb.AuthorizeRequest, response: pb.AuthorizeResponse, **changes: Any) -> pb.SwitchKey:
    parts = {
        "terminal_id": request.terminal_id,
        "stan": request.stan,
        "business_date": response.business_date,
        "mti_class": mti_class_of(request),
    }
    return pb.SwitchKey(**parts | changes)


async def test_every_kind_is_found_by_each_key_with_its_stored_answer(core: Core, bank: Caller) -> None:
    card = core.card()
    held, bought = pre_authorization(card, 1_000), purchase(card, 500)
    gone = purchase(card, 10)
    parents = {"increment": held, "completion": held, "refund": bought, "void": gone, "reversal": bought}
    requests = {
        "hold": held,
        "purchase": bought,
        "gone": gone,
        "tap": tap(card),
        "deposit": deposit(card),
        "benefit": benefit_credit(card),
        "increment": increment(card, held, 50),
        "completion": completion(card, held, 600, more_completions_follow=True),
        "refund": refund(card, bought, 200),
        "void": void(card, gone),
        "reversal": reversal(card, bought, 30),
    }
    rrns = {}
    for name, request in requests.items():
        response = await approved(bank, request)
        rrns[request.request_id] = response.rrn
        found = await look_up(bank, request_id=request.request_id)
        assert (found.request_id, found.operation) == (request.request_id, request.operation)
        assert found.response.SerializeToString() == response.SerializeToString()
        parent = parents.get(name)
        assert found.original_rrn == ("" if parent is None else rrns[parent.request_id])
        assert await look_up(bank, rrn=response.rrn) == found
        assert await look_up(bank, switch_key=switch_key(request, response)) == found


async def test_what_became_of_an_operation_is_told(core: Core, bank: Caller) -> None:
    card = core.card()
    bought, held = purchase(card, 1_000), pre_authorization(card, 1_000)
    await approved(bank, bought)
    await approved(bank, held)
    found = await look_up(bank, request_id=bought.request_id)
    assert (found.reversed_minor, found.refunded_minor) == (0, 0)
    assert (found.hold_state, found.held_minor) == (pb.HOLD_STATE_UNSPECIFIED, 0)
    before = found.decided_at_unix_ms
    await approved(bank, refund(card, bought, 300))
    await approved(bank, reversal(card, bought, 500))
    await approved(bank, completion(card, held, 400, more_completions_follow=True))
    found = await look_up(bank, request_id=bought.request_id)
    assert (found.reversed_minor, found.refunded_minor) == (500, 300)
    assert found.decided_at_unix_ms == before
    found = await look_up(bank, request_id=held.request_id)
    assert (found.hold_state, found.held_minor, found.captured_minor) == (pb.HOLD_STATE_PENDING, 600, 400)
    await approved(bank, void(card, held))
    found = await look_up(bank, request_id=held.request_id)
    assert (found.hold_state, found.held_minor, found.captured_minor) == (pb.HOLD_STATE_CAPTURED, 0, 400)


async def test_time_of_decision_is_the_databases_and_not_the_terminals(core: Core, bank: Caller) -> None:
    before = await core.database.fetchval("SELECT extract(EPOCH FROM clock_timestamp()) * 1000")
    request = purchase(core.card(), terminal_time_unix_ms=2**53)
    response = await approved(bank, request)
    after = await core.database.fetchval("SELECT extract(EPOCH FROM clock_timestamp()) * 1000")
    found = await look_up(bank, request_id=request.request_id)
    assert before - 1 <= found.decided_at_unix_ms <= after
    date, recorded = await core.database.fetchrow(
        "SELECT to_char(business_date, 'YYYYMMDD'), terminal_time_unix_ms FROM operations WHERE request_id = $1",
        request.request_id,
    )
    assert (date, recorded) == (response.business_date, 2**53)


async def test_decline_is_found_and_a_duplicate_by_its_id_only(core: Core, bank: Caller) -> None:
    card = core.card()
    first = purchase(card, 100, terminal_id="LOOK-1")
    answered = await approved(bank, first)
    twin = purchase(card, 100, terminal_id="LOOK-1", stan=first.stan)
    declined = await bank.authorize(twin)
    assert declined.response_code == "94"
    assert (await look_up(bank, request_id=twin.request_id)).response == declined
    by_key = await look_up(bank, switch_key=switch_key(first, answered))
    assert by_key.request_id == first.request_id


async def test_what_another_participant_did_is_unknown(core: Core, bank: Caller, other_bank: Caller) -> None:
    request = purchase(core.card())
    response = await approved(bank, request)
    for key in (
        {"request_id": request.request_id},
        {"rrn": response.rrn},
        {"switch_key": switch_key(request, response)},
    ):
        refusal = await refusal_of(look_up(other_bank, **key))
        assert (refusal.code.name, refusal.reason) == ("NOT_FOUND", "OPERATION_UNKNOWN")
        await look_up(bank, **key)


@pytest.mark.parametrize(
    "changes", [{"stan": 999_999}, {"terminal_id": "OTHER"}, {"business_date": "20250101"}, {"mti_class": 1}]
)
async def test_switch_key_with_another_part_is_unknown(
    core: Core, bank: Caller, changes: dict[str, Any]
) -> None:
    request = purchase(core.card())
    response = await approved(bank, request)
    refusal = await refusal_of(look_up(bank, switch_key=switch_key(request, response, **changes)))
    assert refusal.reason == "OPERATION_UNKNOWN"


async def test_what_moves_no_money_and_kept_places_are_not_found(core: Core, bank: Caller) -> None:
    card = core.card()
    report = loss_report(card)
    await bank.cards.ReportLoss(report, timeout=CALL_S)
    late = purchase(card)
    await bank.authorize(reversal(card, late))
    for request_id in (report.request_id, late.request_id, new_id()):
        assert (await refusal_of(look_up(bank, request_id=request_id))).reason == "OPERATION_UNKNOWN"


async def test_further_grants_are_asked_for_by_class(core: Core, bank: Caller) -> None:
    card = core.card()
    bought = purchase(card)
    await approved(bank, bought)
    trials = {
        "deposit": deposit(card),
        "benefit_credit": benefit_credit(card),
        "advice": purchase(card, chip=None, is_advice=True),
    }
    for rpc_class, request in trials.items():
        caller = core.caller(without(rpc_class))
        refusal = await refusal_of(caller.authorize(request))
        assert (refusal.code.name, refusal.reason) == ("PERMISSION_DENIED", "RPC_CLASS_NOT_GRANTED")
        (answer,) = await caller.frames([request, purchase(card)])
        assert answer.results[0].error.reason == "RPC_CLASS_NOT_GRANTED"
        assert answer.results[1].response.response_code == "00"
        for other_class, other in trials.items():
            if other_class != rpc_class:
                await approved(core.caller(without(rpc_class)), type(other).FromString(_anew(other)))
    refusal = await refusal_of(look_up(core.caller(without("authorization_lookup")), request_id=new_id()))
    assert (refusal.code.name, refusal.reason) == ("PERMISSION_DENIED", "RPC_CLASS_NOT_GRANTED")


def _anew(request: pb.AuthorizeRequest) -> bytes:
    copy = pb.AuthorizeRequest.FromString(request.SerializeToString())
    copy.request_id = new_id()
    copy.stan = request.stan + 300_000
    return copy.SerializeToString()
