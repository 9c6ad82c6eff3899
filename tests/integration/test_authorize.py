"""Money operations through gRPC: what is approved, why anything is declined, and what a decline leaves behind."""

import asyncio
from datetime import date, timedelta

import pytest
from core_under_test import (
    CALL_S,
    OPENING_BALANCE_MINOR,
    Caller,
    Core,
    card_issue,
    changed,
    deposit,
    loss_lift,
    loss_report,
    new_id,
    purchase,
)
from money_requests import decision
from onecard.v1 import cards_pb2
from virtual_card import VirtualCard

from server.cards.directory import CardCipher
from server.cards.rules import CardStatus
from server.cards.synthetic import TRANSACTION_AMOUNT_MAX_MINOR


async def test_approved_purchase_moves_the_money_and_answers_the_chip(core: Core, bank: Caller) -> None:
    card = core.card()
    request = purchase(card, 12_345)
    response = await bank.authorize(request)
    assert decision(response) == ("00", "APPROVED")
    assert response.available_minor == OPENING_BALANCE_MINOR - 12_345
    assert response.available_minor == await core.balance_minor(card)
    assert response.currency_code == "CNY"
    assert len(response.authorization_code) == 6
    assert response.authorization_code.isdigit()
    assert len(response.rrn) == 12
    assert response.rrn.isdigit()
    assert response.business_date.isdigit()
    assert len(response.business_date) == 8
    assert card.accepts(request.chip, arpc=response.arpc, response_code="00")
    debit, credit, amount = await core.database.fetchrow(
        "SELECT debit_account_id, credit_account_id, p.amount_minor FROM postings AS p JOIN operations AS o"
        " USING (operation_id) WHERE o.request_id = $1",
        request.request_id,
    )
    settlement = await core.database.fetchval(
        "SELECT settlement_account_id FROM participants WHERE participant_id = 'bank-01'"
    )
    assert debit == await core.database.fetchval(
        "SELECT account_id FROM accounts WHERE card_id = $1", await core.card_id(card)
    )
    assert (credit, amount) == (settlement, 12_345)


@pytest.mark.parametrize("cipher", list(CardCipher), ids=lambda cipher: cipher.name)
async def test_cards_of_every_cipher_are_approved(core: Core, bank: Caller, cipher: CardCipher) -> None:
    first = 2_000_000 + int(cipher)
    await core.seed(1, first=first, cipher=cipher)
    card = VirtualCard(core.store, first, cipher=cipher)
    request = purchase(card, 100)
    response = await bank.authorize(request)
    assert decision(response) == ("00", "APPROVED")
    assert card.accepts(request.chip, arpc=response.arpc, response_code="00")


async def test_deposit_adds_money_without_a_chip(core: Core, bank: Caller) -> None:
    card = core.card()
    response = await bank.authorize(deposit(card, 555))
    assert decision(response) == ("00", "APPROVED")
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR + 555
    # No card proved itself, so nobody hears what it holds.
    assert (response.available_minor, response.arpc) == (0, b"")


async def test_wrong_cryptogram_is_declined_05_and_tells_nothing(core: Core, bank: Caller) -> None:
    card = core.card()
    chip = card.sign(100)
    for position in range(8):
        broken = bytearray(chip.arqc)
        broken[position] ^= 1
        response = await bank.authorize(purchase(card, chip=changed(chip, arqc=bytes(broken))))
        assert decision(response) == ("05", "CRYPTOGRAM_INVALID")
        assert (response.available_minor, response.arpc, response.authorization_code) == (0, b"", "")
    # None of them has used up the counter.
    assert decision(await bank.authorize(purchase(card, chip=chip))) == ("00", "APPROVED")


async def test_cryptogram_over_other_data_is_declined_05(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    chip = card.sign(100)
    altered = [
        purchase(card, 101, chip=chip),
        purchase(other, 100, chip=chip),
        *(
            purchase(card, 100, chip=changed(chip, **{name: value}))
            for name, value in {
                "atc": 2,
                "unpredictable_number": bytes(4),
                "tvr": bytes(5),
                "aip": bytes(2),
                "iad": bytes(7),
                "transaction_date": "260102",
                "transaction_type": 1,
                "terminal_country_code": "344",
                "psn": "01",
            }.items()
        ),
    ]
    for request in altered:
        assert decision(await bank.authorize(request)) == ("05", "CRYPTOGRAM_INVALID")


async def test_another_chip_on_the_same_number_is_declined_05(core: Core, bank: Caller) -> None:
    card = core.card()
    other = VirtualCard(core.store, card.n, psn="07")
    chip = other.sign(100)
    assert (other.pan, chip.psn) == (card.pan, "07")
    response = await bank.authorize(purchase(card, 100, chip=chip))
    assert decision(response) == ("05", "CRYPTOGRAM_INVALID")
    assert (response.available_minor, response.arpc) == (0, b"")
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR
    # The issued chip's own counter was not moved.
    assert decision(await bank.authorize(purchase(card, 100))) == ("00", "APPROVED")


@pytest.mark.parametrize(
    "cvr", ["03000000", "03100000", "03300000", "03CF0000"], ids=["AAC", "TC", "reserved", "AAC-other-bits"]
)
async def test_cryptogram_that_does_not_ask_to_go_online_is_declined_05(
    core: Core, bank: Caller, cvr: str
) -> None:
    card = core.card()
    refused = card.sign(100, atc=1, cvr=bytes.fromhex(cvr))
    response = await bank.authorize(purchase(card, 100, chip=refused))
    assert decision(response) == ("05", "CRYPTOGRAM_INVALID")
    assert (response.available_minor, response.arpc) == (0, b"")
    # The counter is not used up, and other bits of the results do not matter.
    request = card.sign(100, atc=1, cvr=bytes.fromhex("03EF0000"))
    assert decision(await bank.authorize(purchase(card, 100, chip=request))) == ("00", "APPROVED")


async def test_transaction_counter_serves_once_and_late_ones_within_the_window(
    core: Core, bank: Caller
) -> None:
    card = core.card()

    async def with_atc(atc: int) -> tuple[str, str]:
        return decision(await bank.authorize(purchase(card, 1, chip=card.sign(1, atc=atc))))

    approved, replayed = ("00", "APPROVED"), ("05", "ATC_REPLAYED")
    assert await with_atc(100) == approved
    assert await with_atc(100) == replayed
    assert await with_atc(37) == approved
    assert await with_atc(37) == replayed
    assert await with_atc(36) == replayed
    assert await with_atc(65_535) == approved
    assert await with_atc(65_472) == approved
    assert await with_atc(65_471) == replayed
    assert await with_atc(1) == replayed


async def test_declined_operation_moves_the_counter_too(core: Core, bank: Caller) -> None:
    card = core.card()
    chip = card.sign(TRANSACTION_AMOUNT_MAX_MINOR + 1)
    declined = await bank.authorize(purchase(card, TRANSACTION_AMOUNT_MAX_MINOR + 1, chip=chip))
    assert decision(declined) == ("61", "TRANSACTION_AMOUNT_LIMIT")
    assert card.accepts(chip, arpc=declined.arpc, response_code="61")
    again = await bank.authorize(purchase(card, TRANSACTION_AMOUNT_MAX_MINOR + 1, chip=chip))
    assert decision(again) == ("05", "ATC_REPLAYED")


async def test_counter_heard_while_the_card_was_lost_is_not_heard_again(core: Core, bank: Caller) -> None:
    card = core.card()
    chip = card.sign(100)
    await bank.cards.ReportLoss(loss_report(card), timeout=CALL_S)
    assert decision(await bank.authorize(purchase(card, 100, chip=chip))) == ("41", "CARD_LOST")
    await bank.cards.LiftLoss(loss_lift(card), timeout=CALL_S)
    assert decision(await bank.authorize(purchase(card, 100, chip=chip))) == ("05", "ATC_REPLAYED")


async def test_unknown_card_is_declined_14(core: Core, bank: Caller) -> None:
    card = core.unissued_card()
    for request in (purchase(card), deposit(card)):
        response = await bank.authorize(request)
        assert decision(response) == ("14", "UNKNOWN_CARD")
        assert (response.available_minor, response.arpc) == (0, b"")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (CardStatus.SEALED, ("57", "CARD_SEALED")),
        (CardStatus.LOST, ("41", "CARD_LOST")),
        (CardStatus.APPLICATION_LOCKED, ("62", "APPLICATION_LOCKED")),
        (CardStatus.TEMPORARILY_LOST, ("41", "CARD_TEMPORARILY_LOST")),
        (CardStatus.CANCELLED, ("14", "CARD_CANCELLED")),
    ],
)
async def test_card_not_in_use_is_declined_by_its_status(
    core: Core, bank: Caller, status: CardStatus, expected: tuple[str, str]
) -> None:
    card = core.card()
    await core.set_status(card, status)
    request = purchase(card)
    response = await bank.authorize(request)
    assert decision(response) == expected
    assert card.accepts(request.chip, arpc=response.arpc, response_code=expected[0])
    assert decision(await bank.authorize(deposit(card))) == expected
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR


@pytest.mark.parametrize("kind", [cards_pb2.LOSS_KIND_FORMAL, cards_pb2.LOSS_KIND_TEMPORARY])
async def test_loss_report_declines_41_until_it_is_lifted(core: Core, bank: Caller, kind: int) -> None:
    card = core.card()
    assert decision(await bank.authorize(purchase(card)))[0] == "00"
    await bank.cards.ReportLoss(loss_report(card, kind=kind), timeout=CALL_S)
    assert decision(await bank.authorize(purchase(card)))[0] == "41"
    await bank.cards.LiftLoss(loss_lift(card), timeout=CALL_S)
    assert decision(await bank.authorize(purchase(card)))[0] == "00"


async def test_card_past_its_last_day_is_declined_54(core: Core, bank: Caller) -> None:
    today = await core.database.fetchval("SELECT (now() AT TIME ZONE 'Asia/Shanghai')::date")
    expired, last_day = core.card(), core.card()
    for card, expires_on in ((expired, today - timedelta(days=1)), (last_day, today)):
        statement = "UPDATE cards SET expires_on = $2 WHERE card_id = $1"
        await core.database.execute(statement, await core.card_id(card), expires_on)
    for request in (purchase(expired), deposit(expired)):
        assert decision(await bank.authorize(request)) == ("54", "CARD_EXPIRED")
    assert isinstance(today, date)
    assert decision(await bank.authorize(purchase(last_day))) == ("00", "APPROVED")


async def test_limits_funds_and_their_borders(core: Core, bank: Caller) -> None:
    card = core.unissued_card()
    await bank.cards.IssueCard(card_issue(card), timeout=CALL_S)
    assert decision(await bank.authorize(purchase(card, 1))) == ("51", "INSUFFICIENT_FUNDS")
    await bank.authorize(deposit(card, 700_000))
    assert decision(await bank.authorize(purchase(card, 300_001))) == ("61", "TRANSACTION_AMOUNT_LIMIT")
    assert decision(await bank.authorize(purchase(card, 300_000))) == ("00", "APPROVED")
    assert decision(await bank.authorize(purchase(card, 200_001))) == ("61", "DAY_AMOUNT_LIMIT")
    last = await bank.authorize(purchase(card, 200_000))
    assert (decision(last), last.available_minor) == (("00", "APPROVED"), 200_000)
    assert decision(await bank.authorize(purchase(card, 1))) == ("61", "DAY_AMOUNT_LIMIT")
    await core.database.execute(
        # The day before, as usage.py packs it.
        "UPDATE card_states SET usage = int2send((('x' || encode(substr(usage, 1, 2), 'hex'))::bit(16)::int - 1)"
        "::smallint) || substr(usage, 3) WHERE card_id = $1",
        await core.card_id(card),
    )
    assert decision(await bank.authorize(purchase(card, 200_001))) == ("51", "INSUFFICIENT_FUNDS")
    last = await bank.authorize(purchase(card, 200_000))
    assert (decision(last), last.available_minor) == (("00", "APPROVED"), 0)


async def test_switch_key_used_by_another_request_is_declined_94(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    first = purchase(card, terminal_id="T94")
    assert decision(await bank.authorize(first)) == ("00", "APPROVED")
    for request in (
        purchase(card, terminal_id="T94", stan=first.stan),
        purchase(other, terminal_id="T94", stan=first.stan),
        deposit(other, terminal_id="T94", stan=first.stan),
    ):
        assert decision(await bank.authorize(request)) == ("94", "DUPLICATE_TRANSMISSION")
    for request in (
        purchase(other, terminal_id="T94B", stan=first.stan),
        purchase(other, terminal_id="T94", stan=first.stan + 500_000),
    ):
        assert decision(await bank.authorize(request)) == ("00", "APPROVED")


async def test_switch_key_belongs_to_its_acquirer(core: Core, bank: Caller, other_bank: Caller) -> None:
    first = purchase(core.card(), terminal_id="T94C")
    assert decision(await bank.authorize(first)) == ("00", "APPROVED")
    same_key = purchase(core.card(), terminal_id="T94C", stan=first.stan)
    assert decision(await other_bank.authorize(same_key)) == ("00", "APPROVED")


async def test_of_two_cards_with_one_switch_key_at_once_one_is_approved(core: Core, bank: Caller) -> None:
    callers = [core.caller() for _ in range(4)]
    pairs = [(core.card(), core.card()) for _ in range(60)]

    async def race(number: int, pair: tuple[VirtualCard, VirtualCard]) -> list[str]:
        stan = 700_000 + number
        requests = [purchase(card, terminal_id="T94D", stan=stan) for card in pair]
        answers = await asyncio.gather(
            *(callers[(number + side) % 4].authorize(r) for side, r in enumerate(requests))
        )
        return sorted(answer.response_code for answer in answers)

    outcomes = await asyncio.gather(*(race(number, pair) for number, pair in enumerate(pairs)))
    assert outcomes == [["00", "94"]] * len(pairs)


async def test_rrns_and_outcomes_are_one_per_request(core: Core, bank: Caller) -> None:
    card = core.card()
    responses = await asyncio.gather(*(bank.authorize(deposit(card, 1)) for _ in range(50)))
    assert len({response.rrn for response in responses}) == 50
    assert {response.available_minor for response in responses} == {0}
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR + 50


async def test_request_id_is_a_uuid_of_any_letter_case(core: Core, bank: Caller) -> None:
    request = deposit(core.card(), 5, request_id=new_id().upper())
    first = await bank.authorize(request)
    assert await bank.authorize(changed(request, request_id=request.request_id.lower())) == first
