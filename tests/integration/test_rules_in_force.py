"""What two operators decided is followed by the next operation, at every worker."""

import itertools

import pytest
from core_under_test import Caller, Core, purchase
from money_requests import APPROVED, cash_withdrawal, decision, tap
from rule_operators import ACQUIRER, RuleOffice
from rules_in_force import put_rules

from server.rulebook.rules import Channel

TERMINAL_BLOCKED = ("58", "TERMINAL_NOT_PERMITTED")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def callers(rule_core: Core) -> list[Caller]:
    """Connections of one bank; of so many some end at each worker."""
    return [rule_core.caller() for _ in range(8)]


@pytest.fixture
def terminal_id() -> str:
    """A terminal that no test has used."""
    return f"R{next(_numbers):07}"


async def test_a_terminal_is_declined_at_every_worker_from_its_approval_on(
    office: RuleOffice, rule_core: Core, callers: list[Caller], terminal_id: str
) -> None:
    card = rule_core.card()
    for caller in callers:
        assert decision(await caller.authorize(purchase(card, terminal_id=terminal_id))) == APPROVED
    change = await office.one.propose("terminal", {"is_blocked": True}, f"bank-01/{terminal_id}")
    assert decision(await callers[0].authorize(purchase(card, terminal_id=terminal_id))) == APPROVED
    await office.two.approve(change.change_id)
    for caller in callers:
        answer = await caller.authorize(purchase(card, terminal_id=terminal_id))
        assert decision(answer) == TERMINAL_BLOCKED
    assert (
        decision(await callers[0].authorize(purchase(card, terminal_id=f"{terminal_id}"[:-1] + "x")))
        == APPROVED
    )
    await office.done("terminal", {}, f"bank-01/{terminal_id}")
    for caller in callers:
        assert decision(await caller.authorize(purchase(card, terminal_id=terminal_id))) == APPROVED


async def test_a_lowered_limit_is_in_force_for_the_next_operation_at_every_worker(
    office: RuleOffice, rule_core: Core, callers: list[Caller]
) -> None:
    card = rule_core.card()
    before = await office.one.in_force("limit", "tap")
    for maximum in (500, 400, 300):
        await office.done("limit", {"transaction_amount_max_minor": maximum}, "tap")
        for caller in callers:
            answer = await caller.authorize(tap(card, maximum + 1))
            assert decision(answer) == ("61", "TRANSACTION_AMOUNT_LIMIT")
        assert decision(await callers[0].authorize(tap(card, maximum))) == APPROVED
    await office.done("limit", before, "tap")


async def test_a_terminal_gives_no_cash_when_its_rule_says_so(
    office: RuleOffice, rule_core: Core, callers: list[Caller], terminal_id: str
) -> None:
    card = rule_core.card()
    await office.done("limit", {}, "cash")
    assert decision(await callers[0].authorize(cash_withdrawal(card, terminal_id=terminal_id))) == APPROVED
    await office.done("terminal", {"gives_cash": False}, f"bank-01/{terminal_id}")
    answer = await callers[0].authorize(cash_withdrawal(card, terminal_id=terminal_id))
    assert decision(answer) == TERMINAL_BLOCKED
    assert decision(await callers[0].authorize(purchase(card, terminal_id=terminal_id))) == APPROVED


async def test_an_acquirer_whose_terminals_must_be_registered_is_served_at_those_only(
    office: RuleOffice, rule_core: Core, callers: list[Caller], terminal_id: str
) -> None:
    card = rule_core.card()
    await office.done("acceptance", {"terminals_registered": True}, "bank-01")
    answer = await callers[0].authorize(purchase(card, terminal_id=terminal_id))
    assert decision(answer) == ("97", "TERMINAL_UNKNOWN")
    # Another's registration is not its own.
    await office.done("terminal", {}, f"{ACQUIRER}/{terminal_id}")
    answer = await callers[0].authorize(purchase(card, terminal_id=terminal_id))
    assert decision(answer) == ("97", "TERMINAL_UNKNOWN")
    await office.done("terminal", {}, f"bank-01/{terminal_id}")
    for caller in callers:
        assert decision(await caller.authorize(purchase(card, terminal_id=terminal_id))) == APPROVED
    await office.done("acceptance", {}, "bank-01")


async def test_rules_that_no_worker_can_read_stop_their_subjects_and_nobody_else(
    office: RuleOffice, rule_core: Core, callers: list[Caller], terminal_id: str
) -> None:
    card = rule_core.card()
    newer = {"a_key_of_the_next_release": 1}
    tap_before = await office.one.in_force("limit", "tap")
    await put_rules(rule_core.database, "terminal", {f"bank-01/{terminal_id}": newer})
    await put_rules(rule_core.database, "limit", {Channel.TAP.name.lower(): newer})
    for caller in callers:
        answer = await caller.authorize(purchase(card, terminal_id=terminal_id))
        assert answer.response_code != "00"
        assert answer.approved_minor == 0
        assert decision(await caller.authorize(tap(card, 1))) == ("61", "TRANSACTION_AMOUNT_LIMIT")
        assert decision(await caller.authorize(purchase(card))) == APPROVED
    await office.done("limit", tap_before, "tap")
    await office.done("terminal", {}, f"bank-01/{terminal_id}")
    for caller in callers:
        assert decision(await caller.authorize(purchase(card, terminal_id=terminal_id))) == APPROVED
    assert decision(await callers[0].authorize(tap(rule_core.card(), 1))) == APPROVED
