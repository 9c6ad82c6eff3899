"""PINs of cards through gRPC: verified, changed, unblocked, issued; every decline; and three tries, whoever races."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from core_under_test import CALL_S, GRANTS_IN_FORCE_S, Caller, Core, card_issue, changed, new_id, refusal_of
from onecard.v1 import common_pb2, identity_pb2
from onecard.v1 import cryptography_pb2 as pb
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

from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import EncryptedPin
from crypto.keys import KeyUsage
from crypto.pin_block import Pin, PinBlockFormat
from crypto.pin_verification import Ibm3624Layout, generate_pin_offset
from server.cards.rules import CardStatus
from server.cryptography.rules import PIN_UNBLOCKS_MAX
from server.engine.operation import OperationKind

SERVICE = "CryptographyService"
Sent = Callable[[Caller, PinPad, VirtualCard], Awaitable[Any]]


@pytest.fixture(scope="session")
def pad(core: Core) -> PinPad:
    return PinPad(core.store)


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


async def test_worker_that_has_not_seen_a_new_verification_key_asks_to_be_asked_again(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    later = "UPDATE card_pins SET pvk_version = 200 WHERE card_id = $1 RETURNING pvk_version"
    await core.database.fetchval(later, await core.card_id(card))
    refusal = await refusal_of(verify(bank, pad, card))
    assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "KEY_STORE_UNAVAILABLE")
    assert refusal.retry_delay_ms > 0
    assert await tries(core, card) == 0


async def test_block_of_an_issued_pin_is_stored_sealed(core: Core, bank: Caller, pad: PinPad) -> None:
    card = core.card()
    request = pin_issue(card)
    issued = await bank.cryptography.IssuePin(request, timeout=CALL_S)
    statement = "SELECT response FROM operations WHERE request_id = $1"
    stored = await core.database.fetchval(statement, request.request_id)
    assert issued.pin_block
    assert issued.pin_block not in stored
    assert await bank.cryptography.IssuePin(request, timeout=CALL_S) == issued


async def test_card_that_was_issued_a_moment_ago_may_have_a_pin(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = core.unissued_card()
    assert (await issue(bank, pad, card)).response_code == "14"
    await bank.cards.IssueCard(card_issue(card), timeout=CALL_S)
    issued = await issue(bank, pad, card)
    mailed = pad.opened(issued.pin_block, card.pan)
    assert await verify(core.caller(), pad, card, mailed) == ("00", "ACCEPTED", 3)


async def test_repeat_gives_the_same_bytes_and_counts_no_second_try(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    requests = [
        ("VerifyPin", pad.verification(card, WRONG)),
        ("ChangePin", pad.change(card, WRONG, OTHER)),
        ("UnblockPin", pin_unblock(card)),
        ("ChangePin", pad.change(card, RIGHT, OTHER)),
        ("IssuePin", pin_issue(card)),
    ]
    firsts = []
    for (rpc, request), expected in zip(requests, (1, 2, 0, 0, 0), strict=True):
        firsts.append(await bank.raw(f"{SERVICE}/{rpc}", request))
        repeats = [core.caller().raw(f"{SERVICE}/{rpc}", request) for _ in range(4)]
        assert await asyncio.gather(*repeats) == firsts[-1:] * 4
        assert await tries(core, card) == expected
        assert await core.stored(request.request_id) == 1
    # Long after, too: what was answered does not depend on what the PIN has become.
    for (rpc, request), first in zip(requests, firsts, strict=True):
        assert await bank.raw(f"{SERVICE}/{rpc}", request) == first
    mailed = pad.opened(pb.IssuePinResponse.FromString(firsts[-1]).pin_block, card.pan)
    assert await verify(bank, pad, card, mailed) == ("00", "ACCEPTED", 3)


async def test_twins_of_one_verification_count_one_try(core: Core, pad: PinPad, bank: Caller) -> None:
    callers = [core.caller() for _ in range(4)]
    for _ in range(10):
        card = await with_pin(core, bank, pad)
        request = pad.verification(card, WRONG)
        answers = await asyncio.gather(
            *(callers[n % 4].raw(f"{SERVICE}/VerifyPin", request) for n in range(12))
        )
        assert len(set(answers)) == 1
        assert await tries(core, card) == 1


async def test_other_content_under_an_id_is_refused_by_field(
    core: Core, bank: Caller, other_bank: Caller, pad: PinPad
) -> None:
    card, other = await with_pin(core, bank, pad), core.card()
    stub = bank.cryptography
    verification, changing = pad.verification(card, WRONG), pad.change(card, WRONG, OTHER)
    unblocking, issuing = pin_unblock(card), pin_issue(card)
    reference = common_pb2.CardReference(pan=other.pan)
    trials: list[tuple[Any, Any, Any, str]] = [
        (stub.VerifyPin, verification, changed(verification, pin=pad.pin(OTHER, card.pan)), "content"),
        (stub.VerifyPin, verification, changed(verification, pan=other.pan), "card"),
        (stub.VerifyPin, verification, changed(verification, terminal_id="T-2"), "terminal_id"),
        (stub.VerifyPin, verification, pad.verification(card, request_id=verification.request_id), "content"),
        (stub.ChangePin, changing, changed(changing, new_pin=pad.pin(THIRD, card.pan)), "content"),
        (stub.ChangePin, changing, changed(changing, current_pin=pad.pin(OTHER, card.pan)), "content"),
        (stub.UnblockPin, unblocking, changed(unblocking, card=reference), "card"),
        (stub.IssuePin, issuing, changed(issuing, key=key("zpk-aes"), format=ISO_4), "content"),
        (stub.IssuePin, issuing, changed(issuing, pan=other.pan), "card"),
    ]
    for rpc, first, second, field in trials:
        answer = await rpc(first, timeout=CALL_S)
        refusal = await refusal_of(rpc(second, timeout=CALL_S))
        assert (refusal.code.name, refusal.reason, refusal.field) == (
            "ALREADY_EXISTS",
            "REQUEST_ID_REUSED",
            field,
        )
        assert await rpc(first, timeout=CALL_S) == answer
    refusal = await refusal_of(other_bank.cryptography.VerifyPin(verification, timeout=CALL_S))
    assert (refusal.reason, refusal.field) == ("REQUEST_ID_REUSED", "caller")
    reused = pin_unblock(card, request_id=verification.request_id)
    refusal = await refusal_of(stub.UnblockPin(reused, timeout=CALL_S))
    assert (refusal.reason, refusal.field) == ("REQUEST_ID_REUSED", "operation")
    assert (
        await core.database.fetchval(
            "SELECT count(*) FROM card_pins WHERE card_id = $1", await core.card_id(other)
        )
        == 0
    )


async def test_every_access_to_a_pin_leaves_one_row_with_its_purpose(
    core: Core, bank: Caller, other_bank: Caller, pad: PinPad
) -> None:
    card = core.card()
    await issue(bank, pad, card)
    verification = pad.verification(card, WRONG)
    for _ in range(3):
        await other_bank.cryptography.VerifyPin(verification, timeout=CALL_S)
    await change(bank, pad, card, WRONG)
    await unblock(bank, pad, card)
    rows = await core.database.fetch(
        "SELECT participant_id, operation_kind, catalogue_item, catalogue_item_version, terminal_id"
        " FROM access_log WHERE card_id = $1 ORDER BY block_id, entry_number",
        await core.card_id(card),
    )
    assert [tuple(row) for row in rows] == [
        ("bank-01", OperationKind.ISSUE_PIN, "card.pin", 1, ""),
        ("bank-02", OperationKind.VERIFY_PIN, "card.pin", 1, "T-PIN"),
        ("bank-01", OperationKind.CHANGE_PIN, "card.pin", 1, "T-PIN"),
        ("bank-01", OperationKind.UNBLOCK_PIN, "card.pin", 1, ""),
    ]


async def test_reference_is_stored_sealed_and_bound_to_its_card(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    cards = [await with_pin(core, bank, pad, THIRD) for _ in range(2)]
    pvk = core.store.active("pvk")
    rows = []
    for card in cards:
        card_id = await core.card_id(card)
        row = await core.database.fetchrow(
            "SELECT pvk_version, reference_sealed, p::text FROM card_pins AS p WHERE card_id = $1", card_id
        )
        rows.append((card_id, row[1]))
        offset = generate_pin_offset(
            core.store.lend(pvk),
            Pin(THIRD),
            pan=card.pan[-16:],
            layout=Ibm3624Layout(decimalisation="0123456789012345"),
        )
        assert row[0] == pvk.version
        for clear in (THIRD, offset):
            assert clear not in row[2]
            assert clear.encode() not in row[1]
            assert clear.encode().hex() not in row[2]
        # The offset is what is sealed: the proof that what was looked for is the right thing.
        sealer = core.store.sealer(core.store.active("sealing"))
        opened = sealer.open(row[1], column="card_pins.reference", row_id=str(card_id))
        assert opened.decode() == offset
    # Moved to another card, it does not open: the operation ends in an incident, and neither PIN passes.
    (mine, _), (_, foreign) = rows
    statement = "UPDATE card_pins SET reference_sealed = $2 WHERE card_id = $1"
    await core.database.execute(statement, mine, foreign)
    refusal = await refusal_of(bank.cryptography.VerifyPin(pad.verification(cards[0], THIRD), timeout=CALL_S))
    assert refusal.code.name == "INTERNAL"
    assert THIRD not in refusal.text
    assert await verify(bank, pad, cards[1], THIRD) == ("00", "ACCEPTED", 3)


async def test_reference_of_one_pin_differs_from_card_to_card(core: Core, pad: PinPad) -> None:
    plane = DataPlane(core.store)
    pans = [core.unissued_card().pan for _ in range(20)]
    pins = [
        EncryptedPin(
            key=core.store.active("zpk-sm4"),
            ksn=b"",
            format=PinBlockFormat.SM4_0,
            block=pad.pin(THIRD, pan).block,
            pan=pan,
        )
        for pan in pans
    ]
    references = plane.pin_references(pins)
    assert len({str(dict(reference.by_version)) for reference in references}) == len(pans)


async def test_of_many_wrong_guesses_at_once_three_are_compared(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    callers = [core.caller() for _ in range(8)]
    for _ in range(3):
        card = await with_pin(core, bank, pad)
        guesses = [verify(callers[n % 8], pad, card, f"{n:08d}") for n in range(1, 61) if f"{n:08d}" != RIGHT]
        answers = await asyncio.gather(*guesses)
        compared = sorted(answer for answer in answers if answer[1] == "WRONG_PIN")
        assert compared == [("55", "WRONG_PIN", left) for left in (0, 1, 2)]
        assert set(answers) - set(compared) == {("75", "TRIES_EXCEEDED", 0)}
        late = await asyncio.gather(
            *(verify(callers[n], pad, card, RIGHT if n % 2 else WRONG) for n in range(8))
        )
        assert set(late) == {("75", "TRIES_EXCEEDED", 0)}
        assert await tries(core, card) == 3


async def test_guesses_in_one_frame_and_by_changes_are_counted_alike(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    operations = [
        pb.CryptographyOperation(verify_pin=pad.verification(card, f"{n:08d}"))
        if n % 2
        else pb.CryptographyOperation(change_pin=pad.change(card, f"{n:08d}"))
        for n in range(1, 40)
    ]
    frames = [pb.CryptographyStreamRequest(operations=operations[n::3]) for n in range(3)]

    async def answer(frame: pb.CryptographyStreamRequest) -> list[Any]:
        call = core.caller().cryptography.CryptographyStream(iter([frame]), timeout=CALL_S)
        (answered,) = [response async for response in call]
        return [told(getattr(r, r.WhichOneof("outcome"))) for r in answered.results]

    answers = [one for frame in await asyncio.gather(*map(answer, frames)) for one in frame]
    assert len(answers) == 39
    compared = sorted(answer for answer in answers if answer[1] == "WRONG_PIN")
    assert compared == [("55", "WRONG_PIN", left) for left in (0, 1, 2)]
    assert await verify(bank, pad, card) == ("75", "TRIES_EXCEEDED", 0)


async def test_change_is_in_force_for_every_verification_that_is_answered_after_it(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    callers = [core.caller() for _ in range(6)]
    for _ in range(6):
        card = await with_pin(core, bank, pad)
        is_changed = asyncio.Event()
        late: list[Any] = []

        async def keep_verifying(
            n: int, card: VirtualCard = card, is_changed: asyncio.Event = is_changed, late: list[Any] = late
        ) -> None:
            while True:
                was_changed = is_changed.is_set()
                answer = await verify(callers[n], pad, card, RIGHT)
                if was_changed:
                    late.append(answer)
                    return
                assert answer[1] in {"ACCEPTED", "WRONG_PIN", "TRIES_EXCEEDED"}

        verifying = [asyncio.create_task(keep_verifying(n)) for n in range(5)]
        assert await change(callers[5], pad, card, RIGHT, OTHER) == ("00", "ACCEPTED", 3)
        is_changed.set()
        await asyncio.gather(*verifying)
        assert late
        assert not {answer[1] for answer in late} & {"ACCEPTED"}


async def test_of_two_changes_at_once_one_is_made(core: Core, bank: Caller, pad: PinPad) -> None:
    callers = [core.caller() for _ in range(4)]
    for _ in range(8):
        card = await with_pin(core, bank, pad)
        news = (OTHER, THIRD)
        answers = await asyncio.gather(
            *(change(callers[n], pad, card, RIGHT, new) for n, new in enumerate(news))
        )
        assert sorted(answers) == [("00", "ACCEPTED", 3), ("55", "WRONG_PIN", 2)]
        made = news[answers.index(("00", "ACCEPTED", 3))]
        assert await verify(bank, pad, card, made) == ("00", "ACCEPTED", 3)


async def test_pin_made_before_a_rotation_still_passes_and_a_change_moves_it_on(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    old, changing = await with_pin(core, bank, pad), await with_pin(core, bank, pad)
    before = core.store.active("pvk").version

    async def version(card: VirtualCard) -> int:
        statement = "SELECT pvk_version FROM card_pins WHERE card_id = $1"
        return await core.database.fetchval(statement, await core.card_id(card))

    rotated = core.store.rotate("pvk").version
    await asyncio.sleep(GRANTS_IN_FORCE_S)
    for caller in (bank, core.caller(), core.caller()):
        assert await verify(caller, pad, old, RIGHT) == ("00", "ACCEPTED", 3)
        assert await verify(caller, pad, old, WRONG) == ("55", "WRONG_PIN", 2)
        assert await verify(caller, pad, old, RIGHT) == ("00", "ACCEPTED", 3)
    assert await change(bank, pad, changing, RIGHT, OTHER) == ("00", "ACCEPTED", 3)
    assert (await version(old), await version(changing)) == (before, rotated)
    assert await verify(bank, pad, changing, OTHER) == ("00", "ACCEPTED", 3)
    assert await verify(bank, pad, changing, RIGHT) == ("55", "WRONG_PIN", 2)
    await issue(bank, pad, old)
    assert await version(old) == rotated


async def test_keys_that_may_not_do_it_are_refused_and_change_nothing(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    right = pad.pin(RIGHT, card.pan)
    await verify(bank, pad, card, WRONG)
    trials = [
        (changed(right, key=key("cvk")), "FAILED_PRECONDITION", "KEY_USAGE"),
        (changed(right, key=key("zpk-aes")), "FAILED_PRECONDITION", "KEY_USAGE"),
        (changed(right, key=key("bdk-sm4")), "FAILED_PRECONDITION", "KEY_USAGE"),
        (changed(right, ksn=bytes(10)), "FAILED_PRECONDITION", "KEY_USAGE"),
        (changed(right, key=key("no-such-key")), "NOT_FOUND", "KEY_UNKNOWN"),
        (changed(right, key=key("zpk-sm4", 9)), "NOT_FOUND", "KEY_UNKNOWN"),
        (changed(right, key=key("bdk-sm4"), ksn=bytes(10)), "INVALID_ARGUMENT", "MALFORMED_FIELD"),
        (changed(right, key=key("bdk-sm4"), ksn=bytes(12)), "INVALID_ARGUMENT", "MALFORMED_FIELD"),
    ]
    for pin, code, reason in trials:
        field = "ksn" if reason == "MALFORMED_FIELD" else "key"
        for name, call in (
            ("pin", bank.cryptography.VerifyPin(pad.verification(card, pin=pin), timeout=CALL_S)),
            ("current_pin", bank.cryptography.ChangePin(pad.change(card, current_pin=pin), timeout=CALL_S)),
            ("new_pin", bank.cryptography.ChangePin(pad.change(card, new_pin=pin), timeout=CALL_S)),
        ):
            refusal = await refusal_of(call)
            assert (refusal.code.name, refusal.reason) == (code, reason)
            assert refusal.field == f"{name}.{field}"
    for fields, reason in (
        ({"key": key("cvk")}, "KEY_USAGE"),
        ({"key": key("zpk-aes")}, "KEY_USAGE"),
        ({"key": key("bdk-sm4")}, "KEY_USAGE"),
        ({"key": key("zpk-sm4", 9)}, "KEY_UNKNOWN"),
    ):
        refusal = await refusal_of(bank.cryptography.IssuePin(pin_issue(card, **fields), timeout=CALL_S))
        assert (refusal.reason, refusal.field) == (reason, "key")
    assert await tries(core, card) == 1
    assert await verify(bank, pad, card) == ("00", "ACCEPTED", 3)


async def test_pin_is_not_issued_unbound(core: Core, bank: Caller, pad: PinPad) -> None:
    request = pin_issue(core.card(), key=key("zpk-tdes"), format=ISO_1)
    refusal = await refusal_of(bank.cryptography.IssuePin(request, timeout=CALL_S))
    assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", "format")


async def test_zone_key_that_only_verifies_opens_pins_and_issues_none(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    name = f"zpk-{new_id()[:8]}"
    sm4 = core.store.describe()[0].cipher.SM4
    before = core.store.add_key(name, cipher=sm4, usage=KeyUsage.PIN_ENCRYPTION)
    pin = pad.pin(RIGHT, card.pan, name=name, version=before.version)
    core.store.rotate(name)
    await asyncio.sleep(GRANTS_IN_FORCE_S)
    assert await verify(bank, pad, card, pin=pin) == ("00", "ACCEPTED", 3)
    refused = pin_issue(card, key=key(name, before.version))
    refusal = await refusal_of(bank.cryptography.IssuePin(refused, timeout=CALL_S))
    assert (refusal.code.name, refusal.reason, refusal.field) == ("FAILED_PRECONDITION", "KEY_STATE", "key")
    issued = await issue(bank, pad, card, key=key(name))
    mailed = pad.opened(issued.pin_block, card.pan, name=name)
    assert await verify(bank, pad, card, mailed) == ("00", "ACCEPTED", 3)


async def test_pin_of_a_stolen_identity_is_none(core: Core, bank: Caller, pad: PinPad) -> None:
    """A PIN proves a card, not a person: a name check beside it neither counts nor resets tries."""
    card = await with_pin(core, bank, pad)
    await verify(bank, pad, card, WRONG)
    await bank.verify(
        name_and_number=identity_pb2.NameAndNumber(name=card.name, identity_number=card.identity_number)
    )
    assert await tries(core, card) == 1
