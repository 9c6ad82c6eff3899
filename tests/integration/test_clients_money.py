"""Every kind of money operation through the typed clients, against a real core, as vendors and banks write it."""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from client_site import client_of, resident_of
from core_under_test import OPENING_BALANCE_MINOR, Core
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import identity_pb2

from clients.bank import Bank
from clients.benefit_office import BENEFIT_WALLET, BenefitOffice
from clients.demo.pin_holder import PinHolder
from clients.demo.residents import Bureau
from clients.errors import NotAllowedError, NotFoundError
from clients.holds import Holds
from clients.look_up import LookUp
from clients.money_requests import CardCode
from clients.service_client import OneCardClient
from clients.terminal import Terminal

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module")
async def client(core: Core) -> AsyncIterator[OneCardClient]:
    async with client_of(core) as client:
        yield client


@pytest.fixture
def terminal(client: OneCardClient) -> Terminal:
    """A terminal for each test: its trace numbers begin with 1."""
    return Terminal(client, terminal_id=f"C{next(_numbers):07d}", merchant_id="SHOP")


def decision(answer: pb.AuthorizeResponse) -> tuple[str, str]:
    return answer.response_code, pb.DecisionReason.Name(answer.reason).removeprefix("DECISION_REASON_")


async def test_purchase_takes_what_is_there_only_where_the_till_allows_it(
    core: Core, terminal: Terminal
) -> None:
    chip = resident_of(core).chip
    for _ in range(2):
        await terminal.purchase(chip, amount_minor=400_000)
    left_minor = OPENING_BALANCE_MINOR - 800_000
    whole = await terminal.purchase(chip, amount_minor=left_minor + 1)
    assert decision(whole) == ("51", "INSUFFICIENT_FUNDS")
    part = await terminal.purchase(chip, amount_minor=left_minor + 1, partial_approval_allowed=True)
    assert decision(part) == ("10", "PARTIALLY_APPROVED")
    assert (part.approved_minor, part.available_minor) == (left_minor, 0)
    told = await terminal.inquire_balance(chip)
    assert (told.response_code, told.available_minor) == ("00", 0)


async def test_cash_and_transfers_take_the_pin_that_the_pad_encrypts(
    core: Core, client: OneCardClient, terminal: Terminal
) -> None:
    bureau, neighbour = Bureau(core.data_dir), resident_of(core)
    holder = PinHolder(Bank(client), bureau, pad=bureau.pin_pad(77_001), resident=resident_of(core))
    assert await holder.get_pin() == "00"
    without = await terminal.withdraw_cash(holder.chip, amount_minor=50_000, pin=None)
    assert decision(without) == ("55", "PIN_REQUIRED")
    wrong = await terminal.withdraw_cash(holder.chip, amount_minor=50_000, pin=holder.mistype())
    assert decision(wrong) == ("55", "WRONG_PIN")
    paid = await terminal.withdraw_cash(holder.chip, amount_minor=50_000, pin=holder.enter())
    assert decision(paid) == ("00", "APPROVED")
    sent = await terminal.transfer(
        holder.chip, to_pan=neighbour.chip.pan, amount_minor=70_000, pin=holder.enter()
    )
    assert decision(sent) == ("00", "APPROVED")
    assert sent.available_minor == OPENING_BALANCE_MINOR - 120_000
    received = await terminal.inquire_balance(neighbour.chip)
    assert received.available_minor == OPENING_BALANCE_MINOR + 70_000


async def test_tap_has_limits_of_its_own(core: Core, terminal: Terminal) -> None:
    chip = resident_of(core).chip
    assert decision(await terminal.tap(chip, amount_minor=30_000)) == ("00", "APPROVED")
    assert decision(await terminal.tap(chip, amount_minor=30_001)) == ("61", "TRANSACTION_AMOUNT_LIMIT")


async def test_hold_is_raised_taken_in_parts_and_released(core: Core, terminal: Terminal) -> None:
    chip, desk = resident_of(core).chip, Holds(terminal)
    held = await desk.pre_authorize(chip, amount_minor=200_000)
    assert held.available_minor == OPENING_BALANCE_MINOR - 200_000
    more = await desk.increment(chip.pan, rrn=held.rrn, amount_minor=50_000)
    assert (decision(more), more.held_minor) == (("00", "APPROVED"), 250_000)
    night = await desk.complete(chip.pan, rrn=held.rrn, amount_minor=120_000, more_follow=True)
    assert (night.approved_minor, night.held_minor) == (120_000, 130_000)
    rest = await desk.void(chip.pan, rrn=held.rrn)
    assert (decision(rest), rest.approved_minor) == (("00", "APPROVED"), 130_000)
    told = await terminal.inquire_balance(chip)
    assert told.available_minor == OPENING_BALANCE_MINOR - 120_000


async def test_last_completion_releases_what_it_does_not_take(core: Core, terminal: Terminal) -> None:
    chip, desk = resident_of(core).chip, Holds(terminal)
    held = await desk.pre_authorize(chip, amount_minor=100_000)
    taken = await desk.complete(chip.pan, rrn=held.rrn, amount_minor=30_000)
    assert (taken.approved_minor, taken.held_minor) == (30_000, 0)
    told = await terminal.inquire_balance(chip)
    assert told.available_minor == OPENING_BALANCE_MINOR - 30_000


async def test_refunds_end_at_what_was_paid_and_a_void_undoes_a_purchase_whole(
    core: Core, terminal: Terminal
) -> None:
    chip = resident_of(core).chip
    bought = await terminal.purchase(chip, amount_minor=30_000)
    refund = await terminal.refund(chip.pan, rrn=bought.rrn, amount_minor=20_000)
    assert (decision(refund), refund.approved_minor) == (("00", "APPROVED"), 20_000)
    too_much = await terminal.refund(chip.pan, rrn=bought.rrn, amount_minor=10_001)
    assert decision(too_much) == ("64", "ORIGINAL_AMOUNT_EXCEEDED")
    by_mistake = await terminal.purchase(chip, amount_minor=5_000)
    assert decision(await terminal.void(chip.pan, rrn=by_mistake.rrn)) == ("00", "APPROVED")
    told = await terminal.inquire_balance(chip)
    assert told.available_minor == OPENING_BALANCE_MINOR - 10_000


async def test_code_on_the_phone_pays_once_and_takes_the_refund(
    core: Core, client: OneCardClient, terminal: Terminal
) -> None:
    resident = resident_of(core)
    use = identity_pb2.CARD_CODE_USE_PAYMENT
    card_code = (await Bank(client).card_code(resident.by_pan, use=use)).card_code
    bought = await terminal.pay_by_code(card_code, amount_minor=2_600)
    assert (decision(bought), bought.arpc) == (("00", "APPROVED"), b"")
    assert decision(await terminal.pay_by_code(card_code, amount_minor=2_600)) == ("05", "CARD_CODE_USED")
    back = await terminal.refund(CardCode(card_code), rrn=bought.rrn, amount_minor=2_600)
    assert decision(back) == ("00", "APPROVED")


async def test_advice_is_posted_although_the_card_was_lost_meanwhile(
    core: Core, client: OneCardClient, terminal: Terminal
) -> None:
    resident = resident_of(core)
    stored = terminal.prepare_advice(resident.chip.pan, amount_minor=300, operation=pb.OPERATION_TYPE_TAP)
    await Bank(client).report_loss(resident.by_pan)
    online = await terminal.tap(resident.chip, amount_minor=300)
    assert decision(online) == ("41", "CARD_LOST")
    assert decision(await terminal.submit(stored)) == ("00", "FORCED_POST")
    assert await terminal.submit_raw(stored) == await terminal.submit_raw(stored)


async def test_benefit_goes_to_its_wallet_and_only_who_has_a_fund_pays_it(
    core: Core, client: OneCardClient, terminal: Terminal
) -> None:
    chip = resident_of(core).chip
    paid = await BenefitOffice(client, counter_id="BENEFIT-1").credit(chip.pan, amount_minor=120_000)
    assert (decision(paid), paid.approved_minor) == (("00", "APPROVED"), 120_000)
    bought = await terminal.purchase(chip, amount_minor=20_000, wallet=BENEFIT_WALLET)
    assert (decision(bought), bought.available_minor) == (("00", "APPROVED"), 100_000)
    told = await terminal.inquire_balance(chip)
    assert told.available_minor == OPENING_BALANCE_MINOR
    async with client_of(core, "no-benefit-credit") as without:
        with pytest.raises(NotAllowedError, match="RPC_CLASS_NOT_GRANTED"):
            await BenefitOffice(without).credit(chip.pan, amount_minor=1)


async def test_operation_is_looked_up_by_each_of_its_names_by_its_own_caller_only(
    core: Core, client: OneCardClient, terminal: Terminal
) -> None:
    chip, look_up = resident_of(core).chip, LookUp(client)
    request = terminal.prepare_purchase(chip, amount_minor=9_000)
    answer = await terminal.submit_with_chip(chip, request)
    await terminal.refund(chip.pan, rrn=answer.rrn, amount_minor=1_000)
    for found in (
        await look_up.by_rrn(answer.rrn),
        await look_up.by_request_id(request.request_id),
        await look_up.by_switch_key(
            terminal_id=request.terminal_id, stan=request.stan, business_date=answer.business_date
        ),
    ):
        assert found.response == answer
        assert found.request_id == request.request_id
        assert (found.refunded_minor, found.reversed_minor) == (1_000, 0)
    async with client_of(core, "bank-02") as other:
        with pytest.raises(NotFoundError, match="OPERATION_UNKNOWN"):
            await LookUp(other).by_rrn(answer.rrn)


async def test_look_up_tells_the_state_of_a_hold(
    core: Core, client: OneCardClient, terminal: Terminal
) -> None:
    chip, desk, look_up = resident_of(core).chip, Holds(terminal), LookUp(client)
    held = await desk.pre_authorize(chip, amount_minor=80_000)
    taken = await desk.complete(chip.pan, rrn=held.rrn, amount_minor=30_000, more_follow=True)
    found = await look_up.by_rrn(held.rrn)
    assert (found.hold_state, found.held_minor, found.captured_minor) == (
        pb.HOLD_STATE_PENDING,
        50_000,
        30_000,
    )
    assert (await look_up.by_rrn(taken.rrn)).original_rrn == held.rrn
