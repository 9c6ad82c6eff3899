"""Wallets of a card: first use makes one, each is for what its rule says, and money goes back to where it came from."""

import asyncio

import pytest
from books import broken_rules, postings_of, wallet_of
from core_under_test import OPENING_BALANCE_MINOR as OPENING
from core_under_test import Caller, Core, deposit, loss_report, purchase
from money_requests import (
    APPROVED,
    approved,
    benefit_credit,
    cash_withdrawal,
    completion,
    decision,
    declined,
    pre_authorization,
    refund,
    reversal,
    tap,
    transfer,
)
from rules_in_force import rule

from server.cards.rules import CardStatus

pytestmark = pytest.mark.usefixtures("no_pin_asked")
NOT_ALLOWED = ("57", "WALLET_NOT_ALLOWED")
MEDICAL, BENEFIT = 2, 3


async def test_benefit_makes_the_wallet_and_comes_from_the_fund(core: Core, bank: Caller) -> None:
    card = core.card()
    assert await declined(bank, purchase(card, 1, wallet=BENEFIT)) == ("51", "INSUFFICIENT_FUNDS")
    credit = benefit_credit(card, 5_000, wallet=BENEFIT)
    response = await approved(bank, credit)
    assert (response.approved_minor, response.available_minor) == (5_000, 0)
    assert await postings_of(core, credit) == [("fund", "wallet-3", 5_000)]
    assert await wallet_of(core, card, BENEFIT) == (5_000, 0)
    spent = await approved(bank, purchase(card, 2_000, wallet=BENEFIT))
    assert spent.available_minor == 3_000
    await approved(bank, cash_withdrawal(card, 3_000, wallet=BENEFIT))
    assert await wallet_of(core, card, BENEFIT) == (0, 0)
    assert await wallet_of(core, card) == (OPENING, 0)


@pytest.mark.parametrize(
    "status", [CardStatus.LOST, CardStatus.TEMPORARILY_LOST, CardStatus.APPLICATION_LOCKED]
)
async def test_benefit_reaches_a_card_that_is_not_in_use(
    core: Core, bank: Caller, status: CardStatus
) -> None:
    card = core.card()
    await core.set_status(card, status)
    await approved(bank, benefit_credit(card, 100, wallet=BENEFIT))
    await core.set_status(card, CardStatus.CANCELLED)
    assert await declined(bank, benefit_credit(card, 100, wallet=BENEFIT)) == ("14", "CARD_CANCELLED")
    assert await declined(bank, benefit_credit(core.unissued_card(), 100)) == ("14", "UNKNOWN_CARD")


async def test_wallet_without_a_rule_is_declined_57(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    for request in (
        purchase(card, 1, wallet=77),
        tap(card, 1, wallet=77),
        cash_withdrawal(card, 1, wallet=77),
        pre_authorization(card, 1, wallet=77),
        transfer(card, other, 1, wallet=77),
        deposit(card, 1, wallet=77),
        benefit_credit(card, 1, wallet=99),
    ):
        assert await declined(bank, request) == NOT_ALLOWED


async def test_wallet_serves_only_merchants_of_its_categories(core: Core, bank: Caller) -> None:
    card = core.card()
    await approved(bank, benefit_credit(card, 5_000, wallet=MEDICAL))
    async with (
        rule(core, "merchant", "bank-01/PHARMACY", category="5912"),
        rule(core, "merchant", "bank-01/GROCER", category="5411"),
    ):
        for make in (purchase, tap, pre_authorization):
            for merchant in ("GROCER", "UNREGISTERED", ""):
                assert (
                    await declined(bank, make(card, 100, wallet=MEDICAL, merchant_id=merchant)) == NOT_ALLOWED
                )
            await approved(bank, make(card, 100, wallet=MEDICAL, merchant_id="PHARMACY"))
    for request in (
        cash_withdrawal(card, 100, wallet=MEDICAL, merchant_id="PHARMACY"),
        transfer(card, core.card(), 100, wallet=MEDICAL),
        deposit(card, 100, wallet=MEDICAL),
    ):
        assert await declined(bank, request) == NOT_ALLOWED
    assert await wallet_of(core, card, MEDICAL) == (4_800, 100)


async def test_category_is_that_of_the_acquirer_who_registered_it(
    core: Core, bank: Caller, other_bank: Caller
) -> None:
    card = core.card()
    await approved(bank, benefit_credit(card, 5_000, wallet=MEDICAL))
    async with rule(core, "merchant", "bank-01/PHARMACY", category="5912"):
        request = purchase(card, 100, wallet=MEDICAL, merchant_id="PHARMACY")
        assert await declined(other_bank, request) == NOT_ALLOWED


async def test_money_goes_back_to_the_wallet_it_came_from_though_nobody_names_it(
    core: Core, bank: Caller
) -> None:
    card = core.card()
    await approved(bank, benefit_credit(card, 5_000, wallet=BENEFIT))
    held = pre_authorization(card, 2_000, wallet=BENEFIT)
    await approved(bank, held)
    done = completion(card, held, 2_000)
    await approved(bank, done)
    assert await postings_of(core, done) == [("wallet-3", "settlement", 2_000)]
    back = refund(card, done, 500)
    await approved(bank, back)
    assert await wallet_of(core, card, BENEFIT) == (3_500, 0)
    await approved(bank, reversal(card, back))
    assert await wallet_of(core, card, BENEFIT) == (3_000, 0)
    await approved(bank, reversal(card, done))
    assert await wallet_of(core, card, BENEFIT) == (5_000, 2_000)
    assert await wallet_of(core, card) == (OPENING, 0)


async def test_reversed_benefit_goes_back_to_the_fund(core: Core, bank: Caller) -> None:
    card = core.card()
    credit = benefit_credit(card, 100, wallet=BENEFIT)
    await approved(bank, credit)
    undo = reversal(card, credit)
    await approved(bank, undo)
    assert await postings_of(core, undo) == [("wallet-3", "fund", 100)]


async def test_first_use_of_a_wallet_at_two_workers_at_once_makes_one(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]
    cards = [core.card() for _ in range(40)]
    requests = [benefit_credit(card, 10, wallet=BENEFIT) for card in cards for _ in range(4)]
    answers = await asyncio.gather(*(callers[n % 4].authorize(r) for n, r in enumerate(requests)))
    assert {decision(answer) for answer in answers} == {APPROVED}
    assert {await wallet_of(core, card, BENEFIT) for card in cards} == {(40, 0)}
    rows = await core.database.fetchval(
        "SELECT count(*) FROM accounts WHERE card_id = ANY ($1::bigint[]) AND wallet = 3",
        [await core.card_id(card) for card in cards],
    )
    assert rows == len(cards)
    assert await broken_rules(core) == {}


async def test_first_use_and_spending_in_one_frame(core: Core, bank: Caller) -> None:
    card = core.card()
    frame = [
        purchase(card, 100, wallet=BENEFIT),
        benefit_credit(card, 100, wallet=BENEFIT),
        purchase(card, 100, wallet=BENEFIT),
        purchase(card, 1, wallet=BENEFIT),
    ]
    (answer,) = await bank.frames(frame)
    codes = [result.response.response_code for result in answer.results]
    assert codes == ["51", "00", "00", "51"]


async def test_deposit_is_refused_on_a_lost_card_where_a_benefit_is_not(core: Core, bank: Caller) -> None:
    card = core.card()
    await bank.cards.ReportLoss(loss_report(card), timeout=20)
    assert await declined(bank, deposit(card, 1)) == ("41", "CARD_LOST")
    await approved(bank, benefit_credit(card, 1))
