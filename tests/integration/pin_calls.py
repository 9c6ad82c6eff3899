"""Calls of the tests about the PIN of a card, and what was answered."""

from typing import Any

from core_under_test import CALL_S, Caller, Core
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import OTHER, RIGHT, PinPad, pin_issue, pin_unblock
from virtual_card import VirtualCard


def told(response: Any) -> tuple[Any, ...]:
    """Response code, reason and, where there is one, the tries that are left."""
    reason = pb.PinReason.Name(response.reason).removeprefix("PIN_REASON_")
    tries = (response.tries_left,) if "tries_left" in response.DESCRIPTOR.fields_by_name else ()
    return (response.response_code, reason, *tries)


async def verify(caller: Caller, pad: PinPad, card: VirtualCard, digits: str = RIGHT, **fields: Any) -> Any:
    request = pad.verification(card, digits, **fields)
    return told(await caller.cryptography.VerifyPin(request, timeout=CALL_S))


async def change(
    caller: Caller, pad: PinPad, card: VirtualCard, current: str = RIGHT, new: str = OTHER, **fields: Any
) -> Any:
    request = pad.change(card, current, new, **fields)
    return told(await caller.cryptography.ChangePin(request, timeout=CALL_S))


async def unblock(caller: Caller, _pad: PinPad, card: VirtualCard) -> Any:
    return told(await caller.cryptography.UnblockPin(pin_unblock(card), timeout=CALL_S))


async def issue(caller: Caller, _pad: PinPad, card: VirtualCard, **fields: Any) -> Any:
    return await caller.cryptography.IssuePin(pin_issue(card, **fields), timeout=CALL_S)


async def with_pin(core: Core, bank: Caller, pad: PinPad, digits: str = RIGHT) -> VirtualCard:
    """A card whose PIN is ``digits``: issued at random, then changed by whoever got the mailer."""
    card = core.card()
    issued = await issue(bank, pad, card)
    mailed = pad.opened(issued.pin_block, card.pan)
    assert await change(bank, pad, card, mailed, digits) == ("00", "ACCEPTED", 3)
    return card


async def tries(core: Core, card: VirtualCard) -> int:
    statement = "SELECT pin_tries FROM card_states WHERE card_id = $1"
    return await core.database.fetchval(statement, await core.card_id(card))
