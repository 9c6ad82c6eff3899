"""Tills that got no answer: whatever the core had decided, afterwards the card holds what it held."""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from client_site import client_of, resident_of
from core_under_test import OPENING_BALANCE_MINOR, Core
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import identity_pb2

from clients.bank import Bank
from clients.chip_card import VirtualChipCard
from clients.demo.pin_holder import PinHolder
from clients.demo.residents import Bureau
from clients.errors import MalformedRequestError
from clients.holds import Holds
from clients.reversals import Reversals
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
    return Terminal(client, terminal_id=f"V{next(_numbers):07d}", merchant_id="SHOP")


@pytest.fixture
def reversals(client: OneCardClient, terminal: Terminal) -> Reversals:
    return Reversals(client, terminal.requests)


def decision(answer: pb.AuthorizeResponse | None) -> tuple[str, str]:
    assert answer is not None, "the core answers"
    return answer.response_code, pb.DecisionReason.Name(answer.reason).removeprefix("DECISION_REASON_")


async def left(terminal: Terminal, chip: VirtualChipCard) -> int:
    return (await terminal.inquire_balance(chip)).available_minor


async def test_reversal_after_its_original_gives_the_money_back_once(
    core: Core, terminal: Terminal, reversals: Reversals
) -> None:
    chip = resident_of(core).chip
    request = terminal.prepare_purchase(chip, amount_minor=8_800)
    decided = await terminal.submit(request)
    assert decision(await reversals.reverse(request)) == ("00", "APPROVED")
    assert decision(await reversals.reverse(request)) == ("94", "ORIGINAL_ALREADY_UNDONE")
    assert await terminal.submit(request) == decided
    assert await left(terminal, chip) == OPENING_BALANCE_MINOR


async def test_original_that_comes_after_its_reversal_is_declined_by_its_id_and_by_its_trace_number(
    core: Core, terminal: Terminal, reversals: Reversals
) -> None:
    chip = resident_of(core).chip
    request = terminal.prepare_purchase(chip, amount_minor=8_800)
    assert decision(await reversals.reverse(request)) == ("00", "REVERSAL_PARKED")
    assert decision(await terminal.submit(request)) == ("05", "REVERSED_IN_ADVANCE")
    other_id = terminal.prepare_purchase(chip, amount_minor=8_800)
    other_id.stan = request.stan
    assert decision(await terminal.submit(other_id)) == ("05", "REVERSED_IN_ADVANCE")
    assert await left(terminal, chip) == OPENING_BALANCE_MINOR


@pytest.mark.parametrize("patience_s", [0.0, 0.001, 0.004, 0.016])
async def test_till_without_patience_reverses_what_it_does_not_know(
    core: Core, terminal: Terminal, reversals: Reversals, patience_s: float
) -> None:
    chip, taken_minor = resident_of(core).chip, 0
    for _ in range(8):
        request = terminal.prepare_purchase(chip, amount_minor=300)
        answer = await reversals.submit_or_reverse(request, patience_s=patience_s)
        if answer is not None:
            assert decision(answer) == ("00", "APPROVED")
            taken_minor += 300
        assert reversals.waiting == ()
    assert patience_s or not taken_minor
    assert await left(terminal, chip) == OPENING_BALANCE_MINOR - taken_minor


async def test_patient_till_gets_its_answer_and_reverses_nothing(
    core: Core, terminal: Terminal, reversals: Reversals
) -> None:
    chip = resident_of(core).chip
    request = terminal.prepare_purchase(chip, amount_minor=300)
    answer = await reversals.submit_or_reverse(request, patience_s=20.0)
    assert decision(answer) == ("00", "APPROVED")
    assert await left(terminal, chip) == OPENING_BALANCE_MINOR - 300


async def test_refused_request_is_not_reversed(core: Core, terminal: Terminal, reversals: Reversals) -> None:
    request = terminal.prepare_purchase(resident_of(core).chip, amount_minor=300)
    request.currency_code = "EUR"
    with pytest.raises(MalformedRequestError, match="currency_code"):
        await reversals.submit_or_reverse(request, patience_s=20.0)
    assert reversals.waiting == ()
    assert await core.stored(request.request_id) == 0


async def test_reversed_pre_authorization_holds_nothing(
    core: Core, terminal: Terminal, reversals: Reversals
) -> None:
    chip = resident_of(core).chip
    for is_late in (False, True):
        request = terminal.requests.with_chip(pb.OPERATION_TYPE_PRE_AUTHORIZATION, chip, amount_minor=50_000)
        if is_late:
            assert decision(await reversals.reverse(request)) == ("00", "REVERSAL_PARKED")
            assert decision(await terminal.submit(request)) == ("05", "REVERSED_IN_ADVANCE")
        else:
            await terminal.submit(request)
            assert decision(await reversals.reverse(request)) == ("00", "APPROVED")
        assert await left(terminal, chip) == OPENING_BALANCE_MINOR


async def test_reversed_completion_is_held_again(
    core: Core, terminal: Terminal, reversals: Reversals
) -> None:
    chip, desk = resident_of(core).chip, Holds(terminal)
    held = await desk.pre_authorize(chip, amount_minor=50_000)
    request = desk.prepare_completion(chip.pan, rrn=held.rrn, amount_minor=50_000)
    await terminal.submit(request)
    assert decision(await reversals.reverse(request)) == ("00", "APPROVED")
    assert await left(terminal, chip) == OPENING_BALANCE_MINOR - 50_000
    assert decision(await desk.void(chip.pan, rrn=held.rrn)) == ("00", "APPROVED")
    assert await left(terminal, chip) == OPENING_BALANCE_MINOR


async def test_reversed_transfer_comes_back_from_the_card_it_went_to(
    core: Core, client: OneCardClient, terminal: Terminal, reversals: Reversals
) -> None:
    bureau, neighbour = Bureau(core.data_dir), resident_of(core)
    holder = PinHolder(Bank(client), bureau, pad=bureau.pin_pad(77_002), resident=resident_of(core))
    await holder.get_pin()
    request = terminal.prepare_transfer(
        holder.chip, to_pan=neighbour.chip.pan, amount_minor=70_000, pin=holder.enter()
    )
    assert decision(await terminal.submit(request)) == ("00", "APPROVED")
    assert decision(await reversals.reverse(request)) == ("00", "APPROVED")
    for chip in (holder.chip, neighbour.chip):
        assert await left(terminal, chip) == OPENING_BALANCE_MINOR


async def test_payment_by_code_is_reversed_by_the_code_that_is_used_up(
    core: Core, client: OneCardClient, terminal: Terminal, reversals: Reversals
) -> None:
    resident = resident_of(core)
    use = identity_pb2.CARD_CODE_USE_PAYMENT
    card_code = (await Bank(client).card_code(resident.by_pan, use=use)).card_code
    request = terminal.requests.by_code(pb.OPERATION_TYPE_PURCHASE, card_code, amount_minor=700)
    assert decision(await terminal.submit(request)) == ("00", "APPROVED")
    assert decision(await reversals.reverse(request)) == ("00", "APPROVED")
    assert await left(terminal, resident.chip) == OPENING_BALANCE_MINOR


async def test_reversal_in_part_leaves_the_rest_taken(core: Core, terminal: Terminal) -> None:
    chip = resident_of(core).chip
    request = terminal.prepare_purchase(chip, amount_minor=10_000)
    await terminal.submit(request)
    part = await terminal.submit(terminal.requests.reversal_of(request, amount_minor=4_000))
    assert (decision(part), part.approved_minor) == (("00", "APPROVED"), 4_000)
    assert await left(terminal, chip) == OPENING_BALANCE_MINOR - 6_000
