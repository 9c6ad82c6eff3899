"""Limits of a channel, as the rules in force say them at the moment of the decision."""

import asyncio
from typing import Any

import pytest
from core_under_test import Caller, Core, purchase
from money_requests import (
    APPROVED,
    approved,
    card_holding,
    cash_withdrawal,
    decision,
    declined,
    pre_authorization,
    refund,
    reversal,
    tap,
    void,
)
from rules_in_force import rule

MAKERS = {"chip": purchase, "tap": tap, "cash": cash_withdrawal, "pre_authorization": pre_authorization}
TRANSACTION = ("61", "TRANSACTION_AMOUNT_LIMIT")
DAY = ("61", "DAY_AMOUNT_LIMIT")
MONTH = ("61", "MONTH_AMOUNT_LIMIT")
DAY_COUNT = ("65", "DAY_COUNT_LIMIT")
MONTH_COUNT = ("65", "MONTH_COUNT_LIMIT")
VELOCITY = ("65", "VELOCITY_LIMIT")


@pytest.mark.parametrize("channel", MAKERS)
@pytest.mark.parametrize(
    ("limit", "amounts", "reason"),
    [
        ({"transaction_amount_max_minor": 50}, (51,), TRANSACTION),
        ({"day_amount_max_minor": 60}, (50, 11), DAY),
        ({"month_amount_max_minor": 60}, (50, 11), MONTH),
        ({"day_count_max": 2}, (1, 1, 1), DAY_COUNT),
        ({"month_count_max": 2}, (1, 1, 1), MONTH_COUNT),
        ({"velocity_count_max": 2, "velocity_window_s": 3_600}, (1, 1, 1), VELOCITY),
    ],
    ids=["transaction", "day", "month", "day-count", "month-count", "velocity"],
)
async def test_one_more_than_the_channels_limit_is_declined(
    core: Core,
    bank: Caller,
    channel: str,
    limit: dict[str, Any],
    amounts: tuple[int, ...],
    reason: tuple[str, str],
) -> None:
    card = await card_holding(core, bank, 1_000)
    make = MAKERS[channel]
    async with rule(core, "limit", channel, **limit):
        for amount in amounts[:-1]:
            await approved(bank, make(card, amount))
        assert await declined(bank, make(card, amounts[-1])) == reason
        others = [MAKERS[name] for name in ("chip", "tap") if name != channel]
        await approved(bank, others[0](card, amounts[-1]))


async def test_change_of_a_rule_is_in_force_for_the_next_operation_at_every_worker(core: Core) -> None:
    callers = [core.caller() for _ in range(6)]
    cards = [core.card() for _ in callers]
    for _ in range(5):
        async with rule(core, "limit", "chip", transaction_amount_max_minor=10):
            answers = [
                await caller.authorize(purchase(c, 11)) for caller, c in zip(callers, cards, strict=True)
            ]
            assert {decision(answer) for answer in answers} == {TRANSACTION}
        answers = await asyncio.gather(
            *(caller.authorize(purchase(c, 11)) for caller, c in zip(callers, cards, strict=True))
        )
        assert {decision(answer) for answer in answers} == {APPROVED}


async def test_what_was_undone_is_free_to_be_used_again(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 1_000)
    async with rule(core, "limit", "chip", day_amount_max_minor=100, day_count_max=1):
        for undo in (void, reversal):
            bought = purchase(card, 100)
            await approved(bank, bought)
            assert await declined(bank, purchase(card, 1)) == DAY
            await approved(bank, undo(card, bought))
        bought = purchase(card, 100)
        await approved(bank, bought)
        # A refund is another day's business: what was bought was bought.
        await approved(bank, refund(card, bought, 100))
        assert await declined(bank, purchase(card, 1)) == DAY


async def test_declined_operations_use_nothing(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 100)
    async with rule(core, "limit", "chip", day_count_max=1):
        for _ in range(3):
            assert (await declined(bank, purchase(card, 101)))[1] == "INSUFFICIENT_FUNDS"
        await approved(bank, purchase(card, 100))


async def test_limit_is_kept_by_operations_at_two_workers_at_once(core: Core, bank: Caller) -> None:
    callers = [core.caller() for _ in range(4)]
    card = await card_holding(core, bank, 10_000)
    async with rule(core, "limit", "chip", day_count_max=7, day_amount_max_minor=10_000):
        requests = [purchase(card, 10) for _ in range(30)]
        answers = await asyncio.gather(*(callers[n % 4].authorize(r) for n, r in enumerate(requests)))
    assert sorted(decision(answer) for answer in answers) == [APPROVED] * 7 + [DAY_COUNT] * 23


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("terminal", {"is_blocked": True}, ("58", "TERMINAL_NOT_PERMITTED")),
        ("merchant", {"is_blocked": True}, ("03", "MERCHANT_INVALID")),
    ],
)
async def test_blocked_terminal_and_merchant_are_declined(
    core: Core,
    bank: Caller,
    other_bank: Caller,
    kind: str,
    content: dict[str, Any],
    expected: tuple[str, str],
) -> None:
    card = core.card()
    fields = {"terminal_id": "BLOCKED", "merchant_id": "BLOCKED"}
    async with rule(core, kind, "bank-01/BLOCKED", **content):
        request = purchase(card, 1, **fields)
        response = await bank.authorize(request)
        assert decision(response) == expected
        assert card.accepts(request.chip, arpc=response.arpc, response_code=expected[0])
        await approved(other_bank, purchase(card, 1, **fields))
        await approved(bank, purchase(card, 1))
        # A reversal is never refused for its place.
        late = purchase(card, 1)
        await approved(bank, late)
        await approved(bank, reversal(card, late, **fields))
    await approved(bank, purchase(card, 1, **fields))


async def test_terminal_that_gives_no_cash_serves_everything_else(
    core: Core, bank: Caller, no_pin_asked: None
) -> None:
    card = core.card()
    async with rule(core, "terminal", "bank-01/NOCASH", gives_cash=False):
        refused = cash_withdrawal(card, 100, terminal_id="NOCASH")
        assert await declined(bank, refused) == ("58", "TERMINAL_NOT_PERMITTED")
        await approved(bank, purchase(card, 100, terminal_id="NOCASH"))


async def test_acquirer_that_must_register_is_served_only_where_it_did(
    core: Core, other_bank: Caller
) -> None:
    card = core.card()
    async with rule(core, "acceptance", "bank-02", terminals_registered=True, merchants_registered=True):
        registered = {"terminal_id": "KNOWN", "merchant_id": "KNOWN"}
        assert await declined(other_bank, purchase(card, 1, **registered)) == ("97", "TERMINAL_UNKNOWN")
        async with rule(core, "terminal", "bank-02/KNOWN"):
            assert await declined(other_bank, purchase(card, 1, **registered)) == ("03", "MERCHANT_INVALID")
            await approved(other_bank, purchase(card, 1, terminal_id="KNOWN", merchant_id=""))
            async with rule(core, "merchant", "bank-02/KNOWN"):
                await approved(other_bank, purchase(card, 1, **registered))


@pytest.mark.parametrize("channel", ["cash", "pre_authorization"])
async def test_amount_above_which_a_pin_is_asked_for(core: Core, bank: Caller, channel: str) -> None:
    card = core.card()
    async with rule(core, "limit", channel, pin_required_above_minor=100):
        assert await declined(bank, MAKERS[channel](card, 101)) == ("55", "PIN_REQUIRED")
        await approved(bank, MAKERS[channel](card, 100))
