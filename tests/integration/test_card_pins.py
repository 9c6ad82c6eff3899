"""PINs of cards through gRPC: verified, changed, unblocked, issued; and every decline."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from core_under_test import CALL_S, Caller, Core, card_issue, changed, refusal_of
from onecard.v1 import common_pb2, identity_pb2
from onecard.v1 import cryptography_pb2 as pb
from pin_calls import change, issue, told, tries, unblock, verify, with_pin
from pin_pad import (
    BOUND_FORMATS,
    ISO_0,
    ISO_1,
    ISO_3,
    ISO_4,
    OTHER,
    RIGHT,
    SM4_0,
    SUFFIXES,
    THIRD,
    WRONG,
    PinPad,
    format_name,
    key,
    pin_issue,
    pin_unblock,
    zpk,
)
from virtual_card import VirtualCard

from server.cards.rules import CardStatus
from server.cryptography.rules import PIN_UNBLOCKS_MAX

Sent = Callable[[Caller, PinPad, VirtualCard], Awaitable[Any]]

ON_A_CARD: dict[str, Sent] = {
    "VerifyPin": verify,
    "ChangePin": change,
    "UnblockPin": unblock,
    "IssuePin": lambda caller, pad, card: _told_issue(caller, pad, card),
}


async def _told_issue(caller: Caller, pad: PinPad, card: VirtualCard) -> Any:
    issued = await issue(caller, pad, card)
    assert bool(issued.pin_block) == (issued.response_code == "00")
    return told(issued)


async def test_issued_pin_is_verified_counted_and_blocked_and_unblocked(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = core.card()
    issued = await issue(bank, pad, card)
    assert told(issued) == ("00", "ACCEPTED")
    mailed = pad.opened(issued.pin_block, card.pan)
    assert len(mailed) == 6
    assert await verify(bank, pad, card, mailed) == ("00", "ACCEPTED", 3)
    assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", 2)
    assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", 1)
    assert await verify(bank, pad, card, mailed) == ("00", "ACCEPTED", 3)
    for left in (2, 1, 0):
        assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", left)
    for digits in (mailed, WRONG):
        assert await verify(bank, pad, card, digits) == ("75", "TRIES_EXCEEDED", 0)
    assert await change(bank, pad, card, mailed) == ("75", "TRIES_EXCEEDED", 0)
    assert await tries(core, card) == 3
    assert await unblock(bank, pad, card) == ("00", "ACCEPTED")
    assert await verify(bank, pad, card, mailed) == ("00", "ACCEPTED", 3)


@pytest.mark.parametrize("digits", ["4906", RIGHT, OTHER, THIRD])
async def test_pin_of_any_length_is_compared_in_every_digit(
    core: Core, bank: Caller, pad: PinPad, digits: str
) -> None:
    card = await with_pin(core, bank, pad, digits)
    assert await verify(bank, pad, card, digits) == ("00", "ACCEPTED", 3)
    last = digits[:-1] + str((int(digits[-1]) + 1) % 10)
    assert await verify(bank, pad, card, last) == ("55", "WRONG_PIN", 2)
    if len(digits) < 12:
        assert await verify(bank, pad, card, digits + "0") == ("55", "WRONG_PIN", 1)


@pytest.mark.parametrize("layout", BOUND_FORMATS, ids=format_name)
async def test_pin_is_verified_in_every_bound_format_and_by_terminals(
    core: Core, bank: Caller, pad: PinPad, layout: int
) -> None:
    card = await with_pin(core, bank, pad)
    terminal = pad.terminal(SUFFIXES[layout])
    for digits, expected in ((RIGHT, ("00", "ACCEPTED", 3)), (WRONG, ("55", "WRONG_PIN", 2))):
        pin = pad.pin(digits, card.pan, layout=layout)
        assert await verify(bank, pad, card, pin=pin) == expected
        await unblock(bank, pad, card)
        assert await verify(bank, pad, card, pin=terminal.pin(digits, card.pan, layout)) == expected
        await unblock(bank, pad, card)


@pytest.mark.parametrize("layout", [ISO_0, ISO_3, ISO_4, SM4_0], ids=format_name)
async def test_issue_draws_a_new_pin_that_voids_the_one_before_and_its_tries(
    core: Core, bank: Caller, pad: PinPad, layout: int
) -> None:
    card = await with_pin(core, bank, pad)
    for _ in range(3):
        await verify(bank, pad, card, WRONG)
    issued = await issue(bank, pad, card, key=key(zpk(layout)), format=layout)
    assert told(issued) == ("00", "ACCEPTED")
    mailed = pad.opened(issued.pin_block, card.pan, layout=layout)
    assert await verify(bank, pad, card, mailed) == ("00", "ACCEPTED", 3)
    assert await verify(bank, pad, card, RIGHT) == ("55", "WRONG_PIN", 2)
    again = await issue(bank, pad, card)
    assert pad.opened(again.pin_block, card.pan) != mailed


async def test_change_needs_the_present_pin_and_counts_it(core: Core, bank: Caller, pad: PinPad) -> None:
    card = await with_pin(core, bank, pad)
    assert await change(bank, pad, card, WRONG, OTHER) == ("55", "WRONG_PIN", 2)
    assert await verify(bank, pad, card, OTHER) == ("55", "WRONG_PIN", 1)
    assert await change(bank, pad, card, RIGHT, OTHER) == ("00", "ACCEPTED", 3)
    assert await verify(bank, pad, card, RIGHT) == ("55", "WRONG_PIN", 2)
    assert await verify(bank, pad, card, OTHER) == ("00", "ACCEPTED", 3)


def spoilt(pin: pb.EncryptedPin) -> pb.EncryptedPin:
    """The same with one bit changed: under SM4_0 it decodes once in 10**26."""
    return changed(pin, block=bytes([pin.block[0] ^ 1]) + pin.block[1:])


async def test_unreadable_block_is_told_apart_and_not_counted(core: Core, bank: Caller, pad: PinPad) -> None:
    card, stranger = await with_pin(core, bank, pad), core.card()
    assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", 2)
    right, of_another = pad.pin(RIGHT, card.pan), pad.pin(RIGHT, stranger.pan)
    unreadable = ("A7", "PIN_BLOCK_INVALID", 2)
    for pin in (spoilt(right), of_another):
        assert await verify(bank, pad, card, pin=pin) == unreadable
        assert await change(bank, pad, card, current_pin=pin) == unreadable
        # The present PIN is right, or wrong: neither is compared while the new one cannot be read.
        assert await change(bank, pad, card, new_pin=pin) == unreadable
        assert await change(bank, pad, card, WRONG, new_pin=pin) == unreadable
    assert await tries(core, card) == 1
    assert await verify(bank, pad, card) == ("00", "ACCEPTED", 3)


@pytest.mark.parametrize("rpc", ON_A_CARD)
async def test_card_that_is_unknown_or_of_another_region_has_one_answer(
    core: Core, bank: Caller, pad: PinPad, rpc: str
) -> None:
    nanchang = core.caller("nanchang-01")
    cards = [core.card() for _ in range(11)]
    abroad = next(card for card in cards if card.facts.issuing_region != "360100")
    await issue(bank, pad, abroad)
    expected = ("14", "UNKNOWN_CARD", 0) if rpc in {"VerifyPin", "ChangePin"} else ("14", "UNKNOWN_CARD")
    for caller, card in ((bank, core.unissued_card()), (nanchang, core.unissued_card()), (nanchang, abroad)):
        assert await ON_A_CARD[rpc](caller, pad, card) == expected
    assert await tries(core, abroad) == 0


OF_STATUS = {
    CardStatus.CANCELLED: ("14", "CARD_CANCELLED"),
    CardStatus.LOST: ("41", "CARD_LOST"),
    CardStatus.TEMPORARILY_LOST: ("41", "CARD_LOST"),
    CardStatus.APPLICATION_LOCKED: ("62", "APPLICATION_LOCKED"),
    CardStatus.SEALED: ("57", "CARD_SEALED"),
}


@pytest.mark.parametrize("rpc", ON_A_CARD)
async def test_card_that_is_not_in_use_says_why_before_its_pin_is_looked_at(
    core: Core, bank: Caller, pad: PinPad, rpc: str
) -> None:
    card, never_had_one = await with_pin(core, bank, pad), core.card()
    no_tries = (0,) if rpc in {"VerifyPin", "ChangePin"} else ()
    for _ in range(3):
        await verify(bank, pad, card, WRONG)
    for each in (card, never_had_one):
        for status, expected in OF_STATUS.items():
            await core.set_status(each, status)
            assert await ON_A_CARD[rpc](bank, pad, each) == expected + no_tries
        await core.set_status(each, CardStatus.NORMAL)
    assert await tries(core, card) == 3
    # What has expired may not become valid again in the directory's cache: so these are cards of their own.
    for status, expected in ((CardStatus.NORMAL, ("54", "CARD_EXPIRED")), *OF_STATUS.items()):
        expired = core.card()
        statement = "UPDATE cards SET expires_on = '2020-01-01' WHERE card_id = $1"
        await core.database.execute(statement, await core.card_id(expired))
        await core.set_status(expired, status)
        assert await ON_A_CARD[rpc](bank, pad, expired) == expected + no_tries


async def test_card_without_a_pin_says_so_before_its_block_is_read(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = core.card()
    assert await verify(bank, pad, card) == ("57", "NO_PIN", 3)
    assert await verify(bank, pad, card, pin=spoilt(pad.pin(RIGHT, card.pan))) == ("57", "NO_PIN", 3)
    assert await change(bank, pad, card) == ("57", "NO_PIN", 3)
    assert await unblock(bank, pad, card) == ("57", "NO_PIN")
    assert await tries(core, card) == 0


async def test_blocked_pin_is_told_before_its_block_is_read(core: Core, bank: Caller, pad: PinPad) -> None:
    card = await with_pin(core, bank, pad)
    for _ in range(3):
        await verify(bank, pad, card, WRONG)
    unreadable = spoilt(pad.pin(RIGHT, card.pan))
    assert await verify(bank, pad, card, pin=unreadable) == ("75", "TRIES_EXCEEDED", 0)
    assert await change(bank, pad, card, current_pin=unreadable) == ("75", "TRIES_EXCEEDED", 0)


@pytest.mark.parametrize("name", ["pan", "identification_code", "identity_number"])
async def test_pin_is_unblocked_by_any_name_of_the_card(
    core: Core, bank: Caller, pad: PinPad, name: str
) -> None:
    card = await with_pin(core, bank, pad)
    await verify(bank, pad, card, WRONG)
    reference = common_pb2.CardReference(**{name: getattr(card, name)})
    request = pin_unblock(card, card=reference)
    assert told(await bank.cryptography.UnblockPin(request, timeout=CALL_S)) == ("00", "ACCEPTED")
    assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", 2)


async def test_unblocking_again_and_again_gives_no_guesses_without_end(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    for _ in range(PIN_UNBLOCKS_MAX):
        assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", 2)
        assert await unblock(bank, pad, card) == ("00", "ACCEPTED")
        # With no wrong try behind it, an unblocking changes and counts nothing.
        assert await unblock(bank, pad, card) == ("00", "ACCEPTED")
    assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", 2)
    assert await unblock(bank, pad, card) == ("75", "UNBLOCKS_EXCEEDED")
    assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", 1)
    # Once the holder is right, they may forget again.
    assert await verify(bank, pad, card) == ("00", "ACCEPTED", 3)
    assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", 2)
    assert await unblock(bank, pad, card) == ("00", "ACCEPTED")


async def test_new_pin_begins_with_all_its_unblockings(core: Core, bank: Caller, pad: PinPad) -> None:
    card = await with_pin(core, bank, pad)
    await core.database.execute(
        "UPDATE card_pins SET unblocks = $2 WHERE card_id = $1", await core.card_id(card), PIN_UNBLOCKS_MAX
    )
    await verify(bank, pad, card, WRONG)
    assert await unblock(bank, pad, card) == ("75", "UNBLOCKS_EXCEEDED")
    assert (await issue(bank, pad, card)).response_code == "00"
    await verify(bank, pad, card, WRONG)
    assert await unblock(bank, pad, card) == ("00", "ACCEPTED")


@pytest.mark.parametrize("path", ["pin", "current_pin", "new_pin"])
async def test_block_that_is_not_bound_to_the_card_is_refused(
    core: Core, bank: Caller, pad: PinPad, path: str
) -> None:
    card = await with_pin(core, bank, pad)
    unbound = pad.pin(RIGHT, card.pan, layout=ISO_1)
    send = verify if path == "pin" else change
    refusal = await refusal_of(send(bank, pad, card, **{path: unbound}))
    assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", f"{path}.format")
    assert await tries(core, card) == 0


async def test_card_that_was_issued_a_moment_ago_may_have_a_pin(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = core.unissued_card()
    assert (await issue(bank, pad, card)).response_code == "14"
    await bank.cards.IssueCard(card_issue(card), timeout=CALL_S)
    issued = await issue(bank, pad, card)
    mailed = pad.opened(issued.pin_block, card.pan)
    assert await verify(core.caller(), pad, card, mailed) == ("00", "ACCEPTED", 3)


async def test_pin_is_not_issued_unbound(core: Core, bank: Caller, pad: PinPad) -> None:
    request = pin_issue(core.card(), key=key("zpk-tdes"), format=ISO_1)
    refusal = await refusal_of(bank.cryptography.IssuePin(request, timeout=CALL_S))
    assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", "format")


async def test_pin_of_a_stolen_identity_is_none(core: Core, bank: Caller, pad: PinPad) -> None:
    """A PIN proves a card, not a person: a name check beside it neither counts nor resets tries."""
    card = await with_pin(core, bank, pad)
    await verify(bank, pad, card, WRONG)
    await bank.verify(
        name_and_number=identity_pb2.NameAndNumber(name=card.name, identity_number=card.identity_number)
    )
    assert await tries(core, card) == 1
