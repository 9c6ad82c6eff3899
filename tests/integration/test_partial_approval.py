"""Less than was asked for is approved only for a terminal that says it can take less."""

from books import postings_of, wallet_of
from core_under_test import Caller, Core, purchase
from money_requests import (
    approved,
    card_holding,
    decision,
    declined,
    pre_authorization,
    refund,
    reversal,
)


async def test_without_the_terminals_word_all_or_nothing_is_approved(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 700)
    assert await declined(bank, purchase(card, 1_000)) == ("51", "INSUFFICIENT_FUNDS")
    assert await wallet_of(core, card) == (700, 0)


async def test_terminal_that_can_take_less_gets_what_there_is(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 700)
    await approved(bank, pre_authorization(card, 100))
    request = purchase(card, 1_000, partial_approval_allowed=True)
    response = await bank.authorize(request)
    assert decision(response) == ("10", "PARTIALLY_APPROVED")
    assert (response.approved_minor, response.available_minor) == (600, 0)
    assert len(response.authorization_code) == 6
    assert card.accepts(request.chip, arpc=response.arpc, response_code="10")
    assert await postings_of(core, request) == [("wallet-1", "settlement", 600)]
    assert await wallet_of(core, card) == (100, 100)
    assert await core.caller().authorize(request) == response


async def test_enough_money_is_approved_whole_and_none_is_declined(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 700)
    response = await approved(bank, purchase(card, 700, partial_approval_allowed=True))
    assert response.approved_minor == 700
    empty = purchase(card, 1, partial_approval_allowed=True)
    assert await declined(bank, empty) == ("51", "INSUFFICIENT_FUNDS")


async def test_limits_are_asked_for_the_whole_amount(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 700)
    above = purchase(card, 10**9 + 1, partial_approval_allowed=True)
    assert await declined(bank, above) == ("61", "TRANSACTION_AMOUNT_LIMIT")


async def test_only_what_was_approved_can_be_given_back(core: Core, bank: Caller) -> None:
    card = await card_holding(core, bank, 700)
    request = purchase(card, 1_000, partial_approval_allowed=True)
    await bank.authorize(request)
    assert await declined(bank, refund(card, request, 701)) == ("64", "ORIGINAL_AMOUNT_EXCEEDED")
    await approved(bank, refund(card, request, 200))
    assert (await approved(bank, reversal(card, request))).approved_minor == 500
    assert await wallet_of(core, card) == (700, 0)
