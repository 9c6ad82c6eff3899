"""Every kind of money operation under one request id: the same bytes again, and never another content."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from books import broken_rules, wallet_of
from core_under_test import CALL_S, Caller, Core, changed, deposit, loss_report, purchase, refusal_of
from money_requests import (
    APPROVED,
    advice,
    approved,
    benefit_credit,
    by_stan,
    card_holding,
    cash_withdrawal,
    completion,
    decision,
    increment,
    mti_class_of,
    pre_authorization,
    refund,
    reversal,
    tap,
    transfer,
    void,
)
from virtual_card import VirtualCard

AUTHORIZE = "AuthorizationService/Authorize"
pytestmark = pytest.mark.usefixtures("no_pin_asked")
Maker = Callable[[VirtualCard, VirtualCard, Any], Any]
# Makes the request on a card, beside another, after its original; and that original.
KINDS: dict[str, tuple[Maker, Callable[[VirtualCard], Any] | None]] = {
    "purchase": (lambda card, other, _: purchase(card, 300), None),
    "cash": (lambda card, other, _: cash_withdrawal(card, 300), None),
    "tap": (lambda card, other, _: tap(card, 300), None),
    "transfer": (lambda card, other, _: transfer(card, other, 300), None),
    "hold": (lambda card, other, _: pre_authorization(card, 300), None),
    "deposit": (lambda card, other, _: deposit(card, 300), None),
    "benefit": (lambda card, other, _: benefit_credit(card, 300), None),
    "advice": (lambda card, other, _: advice(purchase, card, 300), None),
    "partial": (lambda card, other, _: purchase(card, 10**6, partial_approval_allowed=True), None),
    "increment": (lambda card, other, of: increment(card, of, 300), pre_authorization),
    "completion": (lambda card, other, of: completion(card, of, 100), pre_authorization),
    "void": (lambda card, other, of: void(card, of), purchase),
    "refund": (lambda card, other, of: refund(card, of, 60), purchase),
    "reversal": (lambda card, other, of: reversal(card, of, 60), purchase),
    "parked": (lambda card, other, of: reversal(card, purchase(card)), None),
}


async def prepared(core: Core, bank: Caller, name: str) -> tuple[VirtualCard, VirtualCard, Any]:
    make, make_original = KINDS[name]
    card, other = await card_holding(core, bank, 10_000), core.card()
    original = make_original(card) if make_original is not None else None
    if original is not None:
        await approved(bank, original)
    return card, other, make(card, other, original)


@pytest.mark.parametrize("name", KINDS)
async def test_repeat_of_every_kind_gives_the_same_bytes_and_no_second_effect(
    core: Core, bank: Caller, name: str
) -> None:
    card, other, request = await prepared(core, bank, name)
    first = await bank.raw(AUTHORIZE, request)
    before = await wallet_of(core, card), await wallet_of(core, other)
    # Whatever the card became in between.
    await bank.cards.ReportLoss(loss_report(card), timeout=CALL_S)
    again = [core.caller().raw(AUTHORIZE, request) for _ in range(2)]
    again += [bank.raw(AUTHORIZE, request) for _ in range(3)]
    assert await asyncio.gather(*again) == [first] * 5
    (frame,) = await bank.frames([request, request])
    assert [result.response.SerializeToString() for result in frame.results] == [first] * 2
    assert await core.stored(request.request_id) == 1
    assert (await wallet_of(core, card), await wallet_of(core, other)) == before


@pytest.mark.parametrize("name", KINDS)
async def test_twins_of_every_kind_at_two_workers_at_once_join_one_outcome(
    core: Core, bank: Caller, name: str
) -> None:
    callers = [core.caller() for _ in range(4)]
    for _ in range(5):
        _, _, request = await prepared(core, bank, name)
        answers = await asyncio.gather(*(caller.raw(AUTHORIZE, request) for caller in callers))
        assert len(set(answers)) == 1
        assert await core.stored(request.request_id) == 1


OTHER_CONTENT: dict[str, Callable[[Any, VirtualCard], Any]] = {
    "pan": lambda r, other: changed(r, pan=other.pan),
    "terminal_id": lambda r, other: changed(r, terminal_id="T0000987"),
    "merchant_id": lambda r, other: changed(r, merchant_id="M87654"),
    "stan": lambda r, other: changed(r, stan=987_654),
    "terminal_time_unix_ms": lambda r, other: changed(r, terminal_time_unix_ms=987_654),
    "amount_minor": lambda r, other: changed(r, amount_minor=98_765),
    "original": lambda r, other: changed(r, original=by_stan(purchase(other))),
    "to_pan": lambda r, other: changed(r, to_pan=other.pan),
}


@pytest.mark.parametrize("name", KINDS)
async def test_other_content_of_every_kind_is_refused_and_changes_nothing(
    core: Core, bank: Caller, name: str
) -> None:
    card, _, request = await prepared(core, bank, name)
    third = core.card()
    first = await bank.authorize(request)
    before = await wallet_of(core, card)
    for field, change in OTHER_CONTENT.items():
        if field == "amount_minor" and name == "void":
            continue
        if field in {"original", "to_pan"} and not request.HasField("original") and name != "transfer":
            continue
        if (field == "original" and name == "transfer") or (field == "to_pan" and name != "transfer"):
            continue
        refusal = await refusal_of(bank.authorize(change(request, third)))
        # What no column holds is told as the rest of the content.
        named = field if field not in {"original", "to_pan"} else "content"
        assert (refusal.code.name, refusal.reason, refusal.field) == (
            "ALREADY_EXISTS",
            "REQUEST_ID_REUSED",
            named,
        )
        for value in ("987654", "98765", "M87654", "T0000987", third.pan, card.pan):
            assert value not in refusal.text
        (frame,) = await bank.frames([change(request, third), request])
        assert frame.results[0].error.field == named
        assert frame.results[1].response == first
    assert await wallet_of(core, card) == before
    assert await core.stored(request.request_id) == 1


async def test_decline_stays_declined_after_a_top_up_whatever_the_kind(core: Core, bank: Caller) -> None:
    card, other = await card_holding(core, bank, 0), core.card()
    for make in (purchase, cash_withdrawal, tap, pre_authorization, lambda c, a: transfer(c, other, a)):
        request = make(card, 100)
        first = await bank.raw(AUTHORIZE, request)
        paid_in = deposit(card, 100)
        await approved(bank, paid_in)
        assert await bank.raw(AUTHORIZE, request) == first
        assert await wallet_of(core, card) == (100, 0)
        await approved(bank, make(card, 100))
        await approved(bank, deposit(card, 100))
        assert (await bank.authorize(request)).response_code == "51"
        card = await card_holding(core, bank, 0)


async def test_stan_is_used_once_for_each_class_of_message_and_terminal(core: Core, bank: Caller) -> None:
    card = core.card()
    first = purchase(card, 100, terminal_id="CLASS-1")
    await approved(bank, first)
    same = {"terminal_id": "CLASS-1", "stan": first.stan}
    held = pre_authorization(card, 100, **same)
    for request in (held, reversal(card, first, 10, **same)):
        assert mti_class_of(request) != mti_class_of(first)
        await approved(bank, request)
    for request in (
        purchase(card, 100, **same),
        refund(card, first, 10, **same),
        deposit(card, 10, **same),
        pre_authorization(card, 10, **same),
        increment(card, held, 10, **same),
        reversal(card, first, 10, **same),
    ):
        assert decision(await bank.authorize(request)) == ("94", "DUPLICATE_TRANSMISSION")
    await approved(bank, purchase(card, 100, terminal_id="CLASS-2", stan=first.stan))
    # The key stays with the first: that is what a STAN names.
    assert (
        decision(await bank.authorize(void(card, first, original=by_stan(first), terminal_id="CLASS-1")))[0]
        == "12"
    )


async def test_operation_past_its_deadline_is_not_applied_and_may_come_again(
    core: Core, bank: Caller
) -> None:
    card = core.card()
    card_id = await core.card_id(card)
    request = purchase(card, 100)
    async with core.database.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT 1 FROM card_states WHERE card_id = $1 FOR UPDATE", card_id)
        # The card is held until the caller no longer waits.
        refusal = await refusal_of(bank.authorize(request, timeout_s=0.3))
        assert refusal.code.name == "DEADLINE_EXCEEDED"
        await transaction.rollback()
    # Its batch ends before one that comes later on the same card is answered.
    await approved(bank, purchase(card, 1))
    assert await core.stored(request.request_id) == 0
    assert (await wallet_of(core, card))[0] % 100 == 99
    assert decision(await bank.authorize(request)) == APPROVED


async def test_many_purchases_at_one_merchant_at_two_workers_wait_for_no_lock(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]
    # Each card once: whoever waits, waits for something that they share.
    cards = [core.card() for _ in range(400)]
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = await core.database.fetchval(deadlocks)
    watching = True

    async def waits() -> int:
        """How often a session was seen waiting for a row or a transaction."""
        seen = 0
        while watching:
            seen += await core.database.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND wait_event IN ('tuple', 'transactionid') AND datname = current_database()"
            )
            await asyncio.sleep(0.005)
        return seen

    watch = asyncio.create_task(waits())
    requests = [purchase(card, 7, merchant_id="HOT", terminal_id="HOT") for card in cards]
    answers = await asyncio.gather(*(callers[n % 4].authorize(r) for n, r in enumerate(requests)))
    watching = False
    assert {decision(answer) for answer in answers} == {APPROVED}
    assert await watch == 0
    assert await core.database.fetchval(deadlocks) == before
    assert await broken_rules(core) == {}


async def test_request_id_of_one_kind_is_no_other_kinds(core: Core, bank: Caller) -> None:
    card = core.card()
    request = purchase(card, 100)
    await approved(bank, request)
    for other in (
        tap(card, 100, request_id=request.request_id),
        pre_authorization(card, 100, request_id=request.request_id),
        deposit(card, 100, request_id=request.request_id),
        refund(card, purchase(card), 100, request_id=request.request_id),
    ):
        refusal = await refusal_of(bank.authorize(other))
        assert (refusal.reason, refusal.field) == ("REQUEST_ID_REUSED", "operation")
