"""An online PIN with a money operation: when it is asked for, what it is worth, and that three wrong tries are all."""

import asyncio
from typing import Any

import pytest
from core_under_test import (
    CALL_S,
    OPENING_BALANCE_MINOR,
    Caller,
    Core,
    changed,
    loss_report,
    purchase,
    refusal_of,
)
from money_requests import (
    APPROVED,
    advice,
    balance_inquiry,
    cash_withdrawal,
    decision,
    pre_authorization,
    tap,
    transfer,
)
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import cryptography_pb2
from pin_calls import change, issue, tries, unblock, verify, with_pin
from pin_pad import BOUND_FORMATS, ISO_1, OTHER, RIGHT, SM4_0, WRONG, PinPad, key
from rules_in_force import rule
from virtual_card import VirtualCard

from server.cards.rules import CardStatus

NO_PIN, TRIES_EXCEEDED = ("57", "NO_PIN"), ("75", "PIN_TRIES_EXCEEDED")
WRONG_PIN, PIN_REQUIRED = ("55", "WRONG_PIN"), ("55", "PIN_REQUIRED")
BLOCK_INVALID = ("A7", "PIN_BLOCK_INVALID")


def paying(pad: PinPad, card: VirtualCard, digits: str = RIGHT, **fields: Any) -> pb.AuthorizeRequest:
    """A purchase with a PIN."""
    return purchase(card, **{"pin": pad.pin(digits, card.pan)} | fields)


async def test_right_pin_is_accepted_in_every_operation_of_a_chip(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card, other = await with_pin(core, bank, pad), core.card()
    pin = pad.pin(RIGHT, card.pan)
    for request in (
        purchase(card, pin=pin),
        cash_withdrawal(card, pin=pin),
        transfer(card, other, pin=pin),
        tap(card, pin=pin),
        pre_authorization(card, pin=pin),
        balance_inquiry(card, pin=pin),
    ):
        assert decision(await bank.authorize(request)) == APPROVED


@pytest.mark.parametrize("layout", BOUND_FORMATS)
async def test_pin_of_every_bound_format_and_of_a_dukpt_terminal(
    core: Core, bank: Caller, pad: PinPad, layout: int
) -> None:
    card = await with_pin(core, bank, pad)
    suffix = {8: "tdes"}.get(len(pad.pin(RIGHT, card.pan, layout=layout).block), "")
    pins = [pad.pin(RIGHT, card.pan, layout=layout)]
    terminal = pad.terminal(suffix or ("sm4" if layout == SM4_0 else "aes"))
    pins.append(terminal.pin(RIGHT, card.pan, layout))
    for pin in pins:
        assert decision(await bank.authorize(purchase(card, pin=pin))) == APPROVED
    wrong = terminal.pin(WRONG, card.pan, layout)
    assert decision(await bank.authorize(purchase(card, pin=wrong))) == WRONG_PIN


async def test_operation_that_needs_a_pin_is_declined_without_and_tells_nothing(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card, other = await with_pin(core, bank, pad), core.card()
    for request in (cash_withdrawal(card), transfer(card, other)):
        response = await bank.authorize(request)
        assert decision(response) == PIN_REQUIRED
        assert (response.available_minor, response.authorization_code) == (0, "")
        # The chip hears the answer all the same.
        assert card.accepts(request.chip, arpc=response.arpc, response_code="55")
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR


async def test_amount_above_the_channels_needs_a_pin(core: Core, bank: Caller, pad: PinPad) -> None:
    card = await with_pin(core, bank, pad)
    async with rule(core, "limit", "pre_authorization", pin_required_above_minor=5_000, hold_days=30):
        assert decision(await bank.authorize(pre_authorization(card, 5_000))) == APPROVED
        assert decision(await bank.authorize(pre_authorization(card, 5_001))) == PIN_REQUIRED
        above = pre_authorization(card, 5_001, pin=pad.pin(RIGHT, card.pan))
        assert decision(await bank.authorize(above)) == APPROVED


async def test_wrong_pins_block_payments_and_verifications_alike(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    assert await verify(bank, pad, card, WRONG) == ("55", "WRONG_PIN", 2)
    response = await bank.authorize(paying(pad, card, WRONG))
    assert (decision(response), response.available_minor) == (WRONG_PIN, 0)
    assert await tries(core, card) == 2
    # The right one sets back what both of them counted.
    assert decision(await bank.authorize(paying(pad, card))) == APPROVED
    assert await tries(core, card) == 0
    for _ in range(3):
        assert decision(await bank.authorize(paying(pad, card, WRONG))) == WRONG_PIN
    for digits in (RIGHT, WRONG):
        assert decision(await bank.authorize(paying(pad, card, digits))) == TRIES_EXCEEDED
    assert await verify(bank, pad, card, RIGHT) == ("75", "TRIES_EXCEEDED", 0)
    # A purchase that needs none goes on without.
    assert decision(await bank.authorize(purchase(card))) == APPROVED
    assert await unblock(bank, pad, card) == ("00", "ACCEPTED")
    assert decision(await bank.authorize(paying(pad, card))) == APPROVED


async def test_right_pin_sets_the_unblockings_back(core: Core, bank: Caller, pad: PinPad) -> None:
    card = await with_pin(core, bank, pad)
    unblocks = "SELECT unblocks FROM card_pins WHERE card_id = $1"
    await verify(bank, pad, card, WRONG)
    await unblock(bank, pad, card)
    assert await core.database.fetchval(unblocks, await core.card_id(card)) == 1
    assert decision(await bank.authorize(paying(pad, card))) == APPROVED
    assert await core.database.fetchval(unblocks, await core.card_id(card)) == 0
    assert await verify(bank, pad, card) == ("00", "ACCEPTED", 3)


async def test_card_without_a_pin_and_block_that_does_not_decode(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card, without = await with_pin(core, bank, pad), core.card()
    unreadable = cryptography_pb2.EncryptedPin(block=bytes(16), format=SM4_0, key=key("zpk-sm4"))
    assert decision(await bank.authorize(paying(pad, without))) == NO_PIN
    assert decision(await bank.authorize(purchase(card, pin=unreadable))) == BLOCK_INVALID
    assert await tries(core, card) == 0
    # That the card has no PIN, or none that may be tried, is told before that its block does not decode.
    assert decision(await bank.authorize(purchase(without, pin=unreadable))) == NO_PIN
    for _ in range(3):
        await verify(bank, pad, card, WRONG)
    assert decision(await bank.authorize(purchase(card, pin=unreadable))) == TRIES_EXCEEDED


async def test_whatever_was_wrong_before_counts_no_try(core: Core, bank: Caller, pad: PinPad) -> None:
    card = await with_pin(core, bank, pad)
    used = purchase(card)
    assert decision(await bank.authorize(used)) == APPROVED
    broken = card.sign(100)
    broken.arqc = bytes(8)
    trials = [
        (paying(pad, card, WRONG, stan=used.stan), ("94", "DUPLICATE_TRANSMISSION")),
        (paying(pad, card, WRONG, chip=broken), ("05", "CRYPTOGRAM_INVALID")),
        (paying(pad, card, WRONG, chip=used.chip), ("05", "ATC_REPLAYED")),
    ]
    for request, expected in trials:
        assert decision(await bank.authorize(request)) == expected
        assert await tries(core, card) == 0
    await bank.cards.ReportLoss(loss_report(card), timeout=CALL_S)
    assert decision(await bank.authorize(paying(pad, card, WRONG))) == ("41", "CARD_LOST")
    await core.set_status(card, CardStatus.NORMAL)
    assert await tries(core, card) == 0
    # And what comes after a wrong PIN is not looked at.
    too_much = paying(pad, card, WRONG, amount_minor=10**9, chip=card.sign(10**9))
    assert decision(await bank.authorize(too_much)) == WRONG_PIN
    assert await tries(core, card) == 1


async def test_repeated_request_counts_once_and_gives_the_same_bytes(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    request = paying(pad, card, WRONG)
    path = "AuthorizationService/Authorize"
    first = await bank.raw(path, request)
    assert await asyncio.gather(*(core.caller().raw(path, request) for _ in range(6))) == [first] * 6
    assert await tries(core, card) == 1
    reused = changed(request, pin=pad.pin(RIGHT, card.pan))
    assert (await refusal_of(bank.authorize(reused))).reason == "REQUEST_ID_REUSED"
    assert await tries(core, card) == 1


async def test_of_many_wrong_guesses_at_two_workers_three_are_compared(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    """Payments and verifications at once, in frames and singly: all of them guess at one counter."""
    callers = [core.caller() for _ in range(6)]
    for _ in range(3):
        card = await with_pin(core, bank, pad)
        guesses = [f"{n:08d}" for n in range(1, 41)]
        chips = [card.sign(100) for _ in guesses]
        payments = [paying(pad, card, digits, chip=chip) for digits, chip in zip(guesses, chips, strict=True)]
        frames = [callers[n].frames(payments[n:24:3]) for n in range(3)]
        singly = [callers[n % 6].authorize(request) for n, request in enumerate(payments[24:])]
        verified = [verify(callers[n % 6], pad, card, f"{n:08d}") for n in range(50, 70)]
        answered, single_answers, verdicts = await asyncio.gather(
            asyncio.gather(*frames), asyncio.gather(*singly), asyncio.gather(*verified)
        )
        reasons = [decision(result.response)[1] for (frame,) in answered for result in frame.results]
        reasons += [decision(response)[1] for response in single_answers]
        reasons += [verdict[1] for verdict in verdicts]
        assert reasons.count("WRONG_PIN") == 3
        # Which chip came first is not told: one behind the window is a replay, and no guess.
        assert set(reasons) <= {"WRONG_PIN", "PIN_TRIES_EXCEEDED", "TRIES_EXCEEDED", "ATC_REPLAYED"}
        assert await tries(core, card) == 3
        assert decision(await bank.authorize(paying(pad, card))) == TRIES_EXCEEDED


async def test_changed_pin_is_in_force_for_every_payment_that_begins_after_it(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    callers = [core.caller() for _ in range(4)]
    for _ in range(4):
        card = await with_pin(core, bank, pad)
        assert await change(bank, pad, card, RIGHT, OTHER) == ("00", "ACCEPTED", 3)
        answers = await asyncio.gather(*(caller.authorize(paying(pad, card, OTHER)) for caller in callers))
        assert {decision(answer) for answer in answers} == {APPROVED}
        assert decision(await callers[0].authorize(paying(pad, card, RIGHT))) == WRONG_PIN


async def test_payments_racing_a_change_never_write_the_old_pin_back(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    """Both write the card's PIN: a payment sets unblockings back, and must not take the reference with it."""
    callers = [core.caller() for _ in range(4)]
    for _ in range(8):
        card = await with_pin(core, bank, pad)
        await verify(bank, pad, card, WRONG)
        await unblock(bank, pad, card)
        chips = [card.sign(100) for _ in range(6)]
        payments = [callers[n % 3].authorize(paying(pad, card, chip=chip)) for n, chip in enumerate(chips)]
        answers = await asyncio.gather(change(callers[3], pad, card, RIGHT, OTHER), *payments)
        # Wrong ones are those that came after the change.
        assert {decision(answer) for answer in answers[1:]} <= {APPROVED, WRONG_PIN, TRIES_EXCEEDED}
        if answers[0] == ("00", "ACCEPTED", 3):
            await unblock(bank, pad, card)
            assert await verify(bank, pad, card, OTHER) == ("00", "ACCEPTED", 3)


async def test_pin_is_refused_by_name_where_it_has_no_place(core: Core, bank: Caller, pad: PinPad) -> None:
    card = core.card()
    pin = pad.pin(RIGHT, card.pan)
    original = purchase(card)
    trials: list[tuple[pb.AuthorizeRequest, str]] = [
        (purchase(card, operation=pb.OPERATION_TYPE_DEPOSIT, chip=None, pin=pin), "pin"),
        (advice(purchase, card, pin=pin), "pin"),
        (
            purchase(
                card,
                operation=pb.OPERATION_TYPE_REFUND,
                chip=None,
                pin=pin,
                original=pb.OriginalReference(request_id=original.request_id),
            ),
            "pin",
        ),
        (purchase(card, chip=None, pan="", card_token="tok-00000001", pin=pin), "pin"),
        (purchase(card, chip=None, pan="", card_code="x" * 52, pin=pin), "pin"),
        (purchase(card, pin=pad.pin(RIGHT, card.pan, layout=ISO_1)), "pin.format"),
        (purchase(card, pin=changed(pin, format=None)), "pin.format"),
        (purchase(card, pin=changed(pin, block=bytes(8))), "pin.block"),
        (purchase(card, pin=changed(pin, ksn=bytes(9))), "pin.ksn"),
        (purchase(card, pin=changed(pin, key=key("NO KEY"))), "pin.key.name"),
        (purchase(card, pin=changed(pin, key=key("zpk-sm4", 256))), "pin.key.version"),
        (purchase(card, pin=changed(pin, key=key("bdk-sm4"), ksn=bytes(12))), "pin.ksn"),
    ]
    for request, field in trials:
        refusal = await refusal_of(bank.authorize(request))
        assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", field)
        assert await core.stored(request.request_id) == 0


async def test_key_that_may_not_open_pins_is_refused_and_nothing_is_changed(
    core: Core, bank: Caller, pad: PinPad, cryptography_keys: None
) -> None:
    card = await with_pin(core, bank, pad)
    pin = pad.pin(RIGHT, card.pan)
    chip = card.sign(100)
    for name, code, reason in (
        ("mac-sm4", "FAILED_PRECONDITION", "KEY_USAGE"),
        ("no-such-key", "NOT_FOUND", "KEY_UNKNOWN"),
    ):
        request = purchase(card, chip=chip, pin=changed(pin, key=key(name)))
        refusal = await refusal_of(bank.authorize(request))
        assert (refusal.code.name, refusal.reason, refusal.field) == (code, reason, "pin.key")
    narrow = core.caller("keyless-01")
    refusal = await refusal_of(narrow.authorize(purchase(card, chip=chip, pin=pin)))
    assert (refusal.code.name, refusal.reason, refusal.field) == (
        "PERMISSION_DENIED",
        "KEY_NOT_GRANTED",
        "pin.key",
    )
    # The chip's counter is still good.
    assert decision(await bank.authorize(purchase(card, chip=chip, pin=pin))) == APPROVED


async def test_one_card_pins_do_not_open_another(core: Core, bank: Caller, pad: PinPad) -> None:
    """A block of one card presented for another decodes to another PIN, or not at all."""
    card, other = await with_pin(core, bank, pad), await with_pin(core, bank, pad, OTHER)
    for layout in BOUND_FORMATS:
        moved = pad.pin(RIGHT, card.pan, layout=layout)
        answer = decision(await bank.authorize(purchase(other, pin=moved)))
        assert answer in {WRONG_PIN, BLOCK_INVALID}
        await unblock(bank, pad, other)
    issued = await issue(bank, pad, other)
    mailed = pad.opened(issued.pin_block, other.pan)
    assert decision(await bank.authorize(paying(pad, other, mailed))) == APPROVED
