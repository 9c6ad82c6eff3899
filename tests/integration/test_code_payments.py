"""Paying by the code on the holder's phone: once, within its life, for payment only, and undone by the same code."""

import asyncio
import time
from typing import Any

import pytest
from core_under_test import (
    CALL_S,
    OPENING_BALANCE_MINOR,
    Caller,
    Core,
    changed,
    loss_report,
    purchase,
    refusal_of,
)
from entry_requests import FOR_PAYMENT, by_code, payment_code
from money_requests import APPROVED, BALANCE_INQUIRY, by_request_id, decision
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import identity_pb2
from rules_in_force import rule

from crypto.card_code import CardCodeUse
from server.cards.rules import CardStatus
from server.rulebook.rules import Channel

INVALID, EXPIRED = ("05", "CARD_CODE_INVALID"), ("05", "CARD_CODE_EXPIRED")
USED = ("05", "CARD_CODE_USED")


def code_of_age(core: Core, alias: bytes, *, age_s: int, use: CardCodeUse = CardCodeUse.PAYMENT) -> str:
    """A genuine code that was issued some seconds ago, by the clock of this machine, which is the database's."""
    codes = core.store.card_codes(core.store.active("card-code"))
    return codes.issue(card_alias=alias, use=use, issued_at_s=int(time.time()) - age_s)


async def alias_of(core: Core, card: Any) -> bytes:
    return await core.database.fetchval(
        "SELECT card_alias FROM cards WHERE card_id = $1", await core.card_id(card)
    )


async def test_code_pays_once_and_tells_the_balance(core: Core, bank: Caller) -> None:
    card = core.card()
    code = await payment_code(bank, card)
    request = by_code(code, 1_500)
    response = await bank.authorize(request)
    assert decision(response) == APPROVED
    assert (response.available_minor, response.arpc) == (OPENING_BALANCE_MINOR - 1_500, b"")
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - 1_500
    row = await core.database.fetchrow(
        "SELECT channel, card_id FROM operations WHERE request_id = $1", request.request_id
    )
    assert tuple(row) == (Channel.CODE, await core.card_id(card))
    second = await bank.authorize(by_code(code, 1))
    assert (decision(second), second.available_minor) == (USED, 0)
    # The answer to the first stays what it was.
    assert await bank.authorize(request) == response


async def test_code_asks_for_the_balance(core: Core, bank: Caller) -> None:
    card = core.card()
    code = await payment_code(bank, card)
    response = await bank.authorize(by_code(code, 0, operation=BALANCE_INQUIRY))
    assert (decision(response), response.available_minor) == (APPROVED, OPENING_BALANCE_MINOR)
    again = await bank.authorize(by_code(code, 0, operation=BALANCE_INQUIRY))
    assert (decision(again), again.available_minor) == (USED, 0)


async def test_forged_code_and_code_for_another_use_are_invalid(core: Core, bank: Caller) -> None:
    card = core.card()
    code = await payment_code(bank, card)
    last = "A" if code[-1] != "A" else "Q"
    for forged in (code[:-1] + last, "x" * 52, "x", code + "A"):
        response = await bank.authorize(by_code(forged))
        assert (decision(response), response.available_minor) == (INVALID, 0)
    for use in set(identity_pb2.CardCodeUse.values()) - {0, FOR_PAYMENT}:
        other = await bank.card_code(card, use=use)
        assert decision(await bank.authorize(by_code(other))) == INVALID
    # Forgeries have not used it up.
    assert decision(await bank.authorize(by_code(code))) == APPROVED


async def test_code_lives_sixty_seconds_and_five_more_between_clocks(core: Core, bank: Caller) -> None:
    card = core.card()
    alias = await alias_of(core, card)
    trials = [(62, APPROVED), (68, EXPIRED), (-3, APPROVED), (-8, EXPIRED), (86_400, EXPIRED)]
    for age_s, expected in trials:
        code = code_of_age(core, alias, age_s=age_s)
        assert decision(await bank.authorize(by_code(code))) == expected, age_s


async def test_code_of_no_card_is_of_an_unknown_card(core: Core, bank: Caller) -> None:
    code = code_of_age(core, bytes(8), age_s=0)
    assert decision(await bank.authorize(by_code(code))) == ("14", "UNKNOWN_CARD")


async def test_decline_for_money_uses_the_code_up_and_one_before_it_does_not(
    core: Core, bank: Caller
) -> None:
    card = core.card()
    for amount, expected in (
        (100_001, ("61", "TRANSACTION_AMOUNT_LIMIT")),
        (90_000, ("57", "WALLET_NOT_ALLOWED")),
    ):
        code = await payment_code(bank, card)
        wallet = {"wallet": 2} if expected[1] == "WALLET_NOT_ALLOWED" else {}
        assert decision(await bank.authorize(by_code(code, amount, **wallet))) == expected
        assert decision(await bank.authorize(by_code(code, 1))) == USED
    code = await payment_code(bank, card)
    used = purchase(card)
    await bank.authorize(used)
    duplicate = by_code(code, stan=used.stan)
    assert decision(await bank.authorize(duplicate)) == ("94", "DUPLICATE_TRANSMISSION")
    await core.set_status(card, CardStatus.SEALED)
    assert decision(await bank.authorize(by_code(code))) == ("57", "CARD_SEALED")
    await core.set_status(card, CardStatus.NORMAL)
    assert decision(await bank.authorize(by_code(code))) == APPROVED


async def test_lost_card_pays_by_no_code(core: Core, bank: Caller) -> None:
    card = core.card()
    code = await payment_code(bank, card)
    await bank.cards.ReportLoss(loss_report(card), timeout=CALL_S)
    assert decision(await bank.authorize(by_code(code))) == ("41", "CARD_LOST")


async def test_of_many_payments_by_one_code_at_two_workers_one_is_approved(core: Core, bank: Caller) -> None:
    callers = [core.caller() for _ in range(8)]
    for n in range(12):
        card = core.card()
        code = await payment_code(bank, card)
        requests = [by_code(code, 100 + k) for k in range(24)]
        if n % 2:
            frames = [callers[k].frames(requests[k::8]) for k in range(8)]
            answered = await asyncio.gather(*frames)
            answers = [result.response for (frame,) in answered for result in frame.results]
        else:
            answers = await asyncio.gather(*(callers[k % 8].authorize(r) for k, r in enumerate(requests)))
        decisions = [decision(answer) for answer in answers]
        assert decisions.count(APPROVED) == 1
        assert set(decisions) == {APPROVED, USED}
        paid = next(answer for answer in answers if decision(answer) == APPROVED)
        assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - paid.approved_minor


async def test_payment_and_identity_share_the_single_use_of_a_code(core: Core, bank: Caller) -> None:
    """A code for payment proves nobody's identity, but showing it there uses it up; and the other way round."""
    card = core.card()
    code = await payment_code(bank, card)
    assert not (await bank.verify(card_code=code)).verified
    assert decision(await bank.authorize(by_code(code))) == USED
    code = await payment_code(bank, card)
    assert decision(await bank.authorize(by_code(code))) == APPROVED
    verdict = await bank.verify(card_code=code)
    assert verdict.reason == identity_pb2.IDENTITY_REASON_CREDENTIAL_USED


async def test_used_code_names_the_card_in_what_takes_the_payment_back(core: Core, bank: Caller) -> None:
    card = core.card()
    for kind in (pb.OPERATION_TYPE_VOID, pb.OPERATION_TYPE_REFUND, pb.OPERATION_TYPE_REVERSAL):
        before = await core.balance_minor(card)
        code = await payment_code(bank, card)
        paid = by_code(code, 700)
        assert decision(await bank.authorize(paid)) == APPROVED
        amount = 700 if kind == pb.OPERATION_TYPE_REFUND else 0
        back = by_code(code, amount, operation=kind, original=by_request_id(paid))
        response = await bank.authorize(back)
        assert (decision(response), response.available_minor) == (APPROVED, 0)
        assert await core.balance_minor(card) == before
    # A code that is no code names no card, and nothing of it.
    forged = by_code("x" * 52, operation=pb.OPERATION_TYPE_REFUND, original=by_request_id(paid))
    assert decision(await bank.authorize(forged)) == INVALID


async def test_reversal_by_a_code_that_was_never_used_stops_the_late_payment(
    core: Core, bank: Caller
) -> None:
    card = core.card()
    code = await payment_code(bank, card)
    late = by_code(code, 700)
    back = by_code(code, 0, operation=pb.OPERATION_TYPE_REVERSAL, original=by_request_id(late))
    assert decision(await bank.authorize(back)) == ("00", "REVERSAL_PARKED")
    assert decision(await bank.authorize(late)) == ("05", "REVERSED_IN_ADVANCE")
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR


async def test_channel_of_codes_has_limits_of_its_own(core: Core, bank: Caller) -> None:
    card = core.card()
    async with rule(core, "limit", "code", transaction_amount_max_minor=500, pin_required_above_minor=300):
        for amount, expected in (
            (300, APPROVED),
            # Nobody can enter a PIN here: the rule declines what is above.
            (301, ("55", "PIN_REQUIRED")),
        ):
            code = await payment_code(bank, card)
            assert decision(await bank.authorize(by_code(code, amount))) == expected
        assert decision(await bank.authorize(purchase(card, 501))) == APPROVED


async def test_code_is_refused_by_name_where_it_has_no_place(core: Core, bank: Caller) -> None:
    card = core.card()
    code = await payment_code(bank, card)
    chip = card.sign(100)
    trials: list[tuple[pb.AuthorizeRequest, str]] = [
        (by_code(code, pan=card.pan), "pan"),
        (by_code(code, card_token="tok-00000001"), "pan"),
        (by_code(code, chip=chip), "chip"),
        (by_code(code, is_advice=True), "card_code"),
        (by_code("x" * 65), "card_code"),
        (by_code("x y"), "card_code"),
        *(
            (by_code(code, operation=kind), "card_code")
            for kind in (
                pb.OPERATION_TYPE_CASH_WITHDRAWAL,
                pb.OPERATION_TYPE_TRANSFER,
                pb.OPERATION_TYPE_TAP,
                pb.OPERATION_TYPE_PRE_AUTHORIZATION,
                pb.OPERATION_TYPE_DEPOSIT,
                pb.OPERATION_TYPE_BENEFIT_CREDIT,
                pb.OPERATION_TYPE_INCREMENT,
                pb.OPERATION_TYPE_COMPLETION,
            )
        ),
    ]
    for request, field in trials:
        refusal = await refusal_of(bank.authorize(request))
        assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", field), request.operation
        assert code not in refusal.text
    assert decision(await bank.authorize(by_code(code))) == APPROVED


@pytest.mark.parametrize("field", ["card_code", "amount_minor"])
async def test_other_content_under_an_id_is_refused(core: Core, bank: Caller, field: str) -> None:
    card = core.card()
    request = by_code(await payment_code(bank, card), 100)
    await bank.authorize(request)
    value = await payment_code(bank, card) if field == "card_code" else 101
    refusal = await refusal_of(bank.authorize(changed(request, **{field: value})))
    assert (refusal.code.name, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


async def test_card_of_a_region_not_granted_is_refused_by_code_too(core: Core, bank: Caller) -> None:
    cards = [core.card() for _ in range(12)]
    abroad = next(card for card in cards if card.facts.issuing_region != "360100")
    code = await payment_code(bank, abroad)
    refusal = await refusal_of(core.caller("nanchang-01").authorize(by_code(code)))
    assert (refusal.code.name, refusal.reason) == ("PERMISSION_DENIED", "REGION_NOT_GRANTED")
    assert decision(await bank.authorize(by_code(code))) == APPROVED
