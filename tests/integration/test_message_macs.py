"""A code over the message: what it covers, whose key it is under, and what a wrong one leaves untouched."""

import asyncio
from typing import Any

import pytest
from core_under_test import (
    OPENING_BALANCE_MINOR,
    Caller,
    Core,
    changed,
    deposit,
    new_id,
    purchase,
    refusal_of,
)
from entry_requests import MAC_KEY, by_code, by_token, payment_code, register, with_mac
from money_requests import (
    APPROVED,
    by_request_id,
    cash_withdrawal,
    completion,
    decision,
    pre_authorization,
    refund,
    reversal,
    transfer,
    void,
)
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import common_pb2, cryptography_pb2
from pin_calls import tries, with_pin
from pin_pad import RIGHT, WRONG, PinPad, key
from rules_in_force import rule

from clients.message_mac import put_mac
from crypto.dukpt_tdes import DukptKeyUse
from crypto.key_store.software import SoftwareKeyStore
from server.authorization.credential_conversion import message_of

INVALID = ("A0", "MESSAGE_MAC_INVALID")
CIPHERS = ("tdes", "aes", "sm4")


@pytest.fixture
def store(core: Core) -> SoftwareKeyStore:
    return core.store


def spoiled(request: pb.AuthorizeRequest) -> pb.AuthorizeRequest:
    """The same with another code."""
    mac = bytearray(request.mac.mac)
    mac[0] ^= 1
    return changed(request, mac=pb.MessageMac(key=request.mac.key, ksn=request.mac.ksn, mac=bytes(mac)))


def test_message_is_the_documented_fields_in_their_order() -> None:
    request = pb.AuthorizeRequest(
        request_id="0198c5a2-7d3e-7b4a-9c1d-0242ac120002",
        operation=pb.OPERATION_TYPE_REFUND,
        pan="6217000000000000008",
        amount_minor=12_345,
        terminal_id="T0000001",
        merchant_id="M00001",
        stan=7,
        to_pan="6217000000000000016",
        wallet=2,
        is_advice=True,
        partial_approval_allowed=False,
        more_completions_follow=True,
        chip=common_pb2.ChipCryptogram(arqc=bytes.fromhex("0a1b2c3d4e5f6071")),
        pin=cryptography_pb2.EncryptedPin(block=b"\xff\x00"),
        original=pb.OriginalReference(
            request_id="0198c5a2-7d3e-7b4a-9c1d-0242ac120001",
            rrn="000000000042",
            stan=6,
            terminal_id="T0000002",
            business_date="20261124",
            mti_class=2,
        ),
    )
    assert message_of(request) == (
        b"0198c5a2-7d3e-7b4a-9c1d-0242ac120002|10|6217000000000000008|12345|T0000001|M00001|7|6217000000000000016|"
        b"0198c5a2-7d3e-7b4a-9c1d-0242ac120001|000000000042|6|T0000002|20261124|2|2|1|0|1|0a1b2c3d4e5f6071|ff00"
    )
    bare = pb.AuthorizeRequest(card_code="CODE", operation=pb.OPERATION_TYPE_PURCHASE)
    assert message_of(bare) == b"|1|CODE|0|||0||||0|||0|0|0|0|0||"


async def test_right_code_is_accepted_with_every_operation(
    core: Core, bank: Caller, pad: PinPad, store: SoftwareKeyStore
) -> None:
    card, other = await with_pin(core, bank, pad), core.card()
    pin = pad.pin(RIGHT, card.pan)
    code, token = await payment_code(bank, card), await register(bank, card)
    held, paid = pre_authorization(card, 500), purchase(card, 300)
    undone, taken = purchase(card, 200), transfer(card, other, 50, pin=pin)
    for request in (
        held,
        paid,
        undone,
        taken,
        cash_withdrawal(card, pin=pin),
        deposit(card),
        by_code(code),
        by_token(token),
        completion(card, held, 400),
        refund(card, paid, 100),
        void(card, undone),
        reversal(card, taken),
    ):
        response = await bank.authorize(with_mac(store, request))
        assert decision(response) == APPROVED, request.operation


@pytest.mark.parametrize("suffix", CIPHERS)
async def test_code_of_a_dukpt_terminal_beside_a_pin_of_the_same_transaction(
    core: Core, bank: Caller, pad: PinPad, suffix: str
) -> None:
    card = await with_pin(core, bank, pad)
    terminal = pad.terminal(suffix)
    layout = {
        "tdes": cryptography_pb2.PIN_BLOCK_FORMAT_ISO_3,
        "aes": cryptography_pb2.PIN_BLOCK_FORMAT_ISO_4,
        "sm4": cryptography_pb2.PIN_BLOCK_FORMAT_SM4_0,
    }[suffix]
    request = purchase(card, pin=terminal.pin(RIGHT, card.pan, layout))
    mac_key = terminal.working_key(DukptKeyUse.MAC_REQUEST)
    put_mac(request, mac_key, name=terminal.key_name, ksn=request.pin.ksn)
    assert decision(await bank.authorize(request)) == APPROVED
    # The code of one transaction is not that of the next.
    later = purchase(card)
    put_mac(later, mac_key, name=terminal.key_name, ksn=terminal.begin())
    assert decision(await bank.authorize(later)) == INVALID


async def test_any_field_that_was_changed_on_the_way_breaks_the_code(
    core: Core, bank: Caller, store: SoftwareKeyStore
) -> None:
    card, other = core.card(), core.card()
    original = purchase(card)
    await bank.authorize(original)
    changes: list[dict[str, Any]] = [
        {"request_id": new_id()},
        {"operation": pb.OPERATION_TYPE_REVERSAL},
        {"pan": other.pan},
        {"amount_minor": 51},
        {"terminal_id": "T0000009"},
        {"merchant_id": "M2"},
        {"stan": 900_001},
        {"wallet": 1},
        {"is_advice": True},
        {"original": pb.OriginalReference(request_id=new_id())},
        {"original": pb.OriginalReference(rrn="000000000001")},
        {"original": pb.OriginalReference(stan=1)},
    ]
    for change in changes:
        request = with_mac(store, refund(card, original, 1))
        assert decision(await bank.authorize(changed(request, **change))) == INVALID, change
    for change in ({"partial_approval_allowed": True}, {"is_advice": True, "chip": None}):
        request = with_mac(store, purchase(card))
        assert decision(await bank.authorize(changed(request, **change))) == INVALID, change
    request = with_mac(store, purchase(card))
    assert decision(await bank.authorize(changed(request, chip=card.sign(100)))) == INVALID
    held = pre_authorization(card)
    await bank.authorize(held)
    request = with_mac(store, completion(card, held))
    assert decision(await bank.authorize(changed(request, more_completions_follow=True))) == INVALID
    sent_on = with_mac(store, transfer(card, other))
    assert decision(await bank.authorize(changed(sent_on, to_pan=core.card().pan))) == INVALID


async def test_wrong_code_leaves_chip_pin_and_card_code_as_they_were(
    core: Core, bank: Caller, pad: PinPad, store: SoftwareKeyStore
) -> None:
    card = await with_pin(core, bank, pad)
    chip = card.sign(100)
    forged = spoiled(with_mac(store, purchase(card, chip=chip, pin=pad.pin(WRONG, card.pan))))
    response = await bank.authorize(forged)
    assert (decision(response), response.available_minor) == (INVALID, 0)
    assert await tries(core, card) == 0
    assert decision(await bank.authorize(with_mac(store, purchase(card, chip=chip)))) == APPROVED
    code = await payment_code(bank, card)
    assert decision(await bank.authorize(spoiled(with_mac(store, by_code(code))))) == INVALID
    assert decision(await bank.authorize(with_mac(store, by_code(code)))) == APPROVED
    # The decline is stored like any other.
    assert await bank.authorize(forged) == response
    assert await core.stored(forged.request_id) == 1
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - 200


async def test_forged_reversal_gives_nothing_back(core: Core, bank: Caller, store: SoftwareKeyStore) -> None:
    card = core.card()
    paid = purchase(card, 400)
    await bank.authorize(paid)
    assert decision(await bank.authorize(spoiled(with_mac(store, reversal(card, paid))))) == INVALID
    unknown = reversal(card, purchase(card))
    assert decision(await bank.authorize(spoiled(with_mac(store, unknown)))) == INVALID
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - 400


async def test_duplicate_is_told_before_a_wrong_code_and_that_before_the_terminal(
    core: Core, bank: Caller, store: SoftwareKeyStore
) -> None:
    card = core.card()
    used = purchase(card)
    await bank.authorize(used)
    duplicate = spoiled(with_mac(store, purchase(card, stan=used.stan)))
    assert decision(await bank.authorize(duplicate)) == ("94", "DUPLICATE_TRANSMISSION")
    async with rule(core, "terminal", "bank-01/T-BLOCKED", is_blocked=True):
        request = with_mac(store, purchase(card, terminal_id="T-BLOCKED"))
        assert decision(await bank.authorize(request)) == ("58", "TERMINAL_NOT_PERMITTED")
        again = with_mac(store, purchase(card, terminal_id="T-BLOCKED"))
        assert decision(await bank.authorize(spoiled(again))) == INVALID
    stranger = spoiled(with_mac(store, purchase(core.unissued_card())))
    assert decision(await bank.authorize(stranger)) == INVALID


async def test_terminal_whose_rule_demands_a_code_is_not_served_without_it_or_under_another_key(
    core: Core, bank: Caller, store: SoftwareKeyStore
) -> None:
    card = core.card()
    at = {"terminal_id": "T-CODED"}
    async with rule(core, "terminal", "bank-01/T-CODED", mac_key=MAC_KEY):
        paid = with_mac(store, purchase(card, **at))
        assert decision(await bank.authorize(paid)) == APPROVED
        other_key = with_mac(store, purchase(card, **at), name="mac-unionpay-sm4")
        for request in (purchase(card, **at), deposit(card, **at), reversal(card, paid, **at), other_key):
            assert decision(await bank.authorize(request)) == INVALID
        # Another terminal of the acquirer needs none.
        assert decision(await bank.authorize(purchase(card))) == APPROVED
        back = with_mac(store, reversal(card, paid, **at))
        assert decision(await bank.authorize(back)) == APPROVED
    assert decision(await bank.authorize(purchase(card, **at))) == APPROVED


async def test_codes_of_one_frame_are_judged_singly(
    core: Core, bank: Caller, store: SoftwareKeyStore
) -> None:
    requests = [with_mac(store, purchase(core.card())) for _ in range(12)]
    sent = [spoiled(request) if n % 3 == 0 else request for n, request in enumerate(requests)]
    (frame,) = await bank.frames(sent)
    assert [decision(result.response) for result in frame.results] == [INVALID, APPROVED, APPROVED] * 4


async def test_key_that_makes_no_codes_or_is_not_granted_is_refused(
    core: Core, bank: Caller, store: SoftwareKeyStore, cryptography_keys: None
) -> None:
    card = core.card()
    request = with_mac(store, purchase(card))
    trials: list[tuple[pb.MessageMac, str, str, str]] = [
        (pb.MessageMac(key=key("zpk-sm4"), mac=bytes(8)), "FAILED_PRECONDITION", "KEY_USAGE", "mac.key"),
        (pb.MessageMac(key=key("no-key"), mac=bytes(8)), "NOT_FOUND", "KEY_UNKNOWN", "mac.key"),
        (
            pb.MessageMac(key=key("NO KEY"), mac=bytes(8)),
            "INVALID_ARGUMENT",
            "MALFORMED_FIELD",
            "mac.key.name",
        ),
        (pb.MessageMac(key=key(MAC_KEY), mac=bytes(3)), "INVALID_ARGUMENT", "MALFORMED_FIELD", "mac.mac"),
        (pb.MessageMac(key=key(MAC_KEY), mac=bytes(9)), "INVALID_ARGUMENT", "MALFORMED_FIELD", "mac.mac"),
        (pb.MessageMac(mac=bytes(8)), "INVALID_ARGUMENT", "MALFORMED_FIELD", "mac.key.name"),
        (
            pb.MessageMac(key=key("mac-unionpay-sm4"), mac=bytes(4)),
            "INVALID_ARGUMENT",
            "MALFORMED_FIELD",
            "mac.mac",
        ),
        (
            pb.MessageMac(key=key("bdk-sm4"), ksn=bytes(9), mac=bytes(8)),
            "INVALID_ARGUMENT",
            "MALFORMED_FIELD",
            "mac.ksn",
        ),
        (
            pb.MessageMac(key=key("bdk-sm4"), ksn=bytes(12), mac=bytes(8)),
            "INVALID_ARGUMENT",
            "MALFORMED_FIELD",
            "mac.ksn",
        ),
    ]
    for mac, code, reason, field in trials:
        refusal = await refusal_of(bank.authorize(changed(request, mac=mac)))
        assert (refusal.code.name, refusal.reason, refusal.field) == (code, reason, field)
    refusal = await refusal_of(core.caller("keyless-01").authorize(request))
    assert (refusal.code.name, refusal.reason, refusal.field) == (
        "PERMISSION_DENIED",
        "KEY_NOT_GRANTED",
        "mac.key",
    )
    for name, value in (("terminal_id", "T|1"), ("merchant_id", "M|1")):
        refusal = await refusal_of(bank.authorize(changed(request, **{name: value})))
        assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", name)
    # Nothing was stored, and the chip's counter is still good.
    assert decision(await bank.authorize(request)) == APPROVED


async def test_repeats_with_the_same_code_are_one_operation(
    core: Core, bank: Caller, store: SoftwareKeyStore
) -> None:
    card = core.card()
    request = with_mac(store, purchase(card))
    path = "AuthorizationService/Authorize"
    answers = await asyncio.gather(*(core.caller().raw(path, request) for _ in range(6)))
    assert len(set(answers)) == 1
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - 100
    refusal = await refusal_of(bank.authorize(spoiled(request)))
    assert refusal.reason == "REQUEST_ID_REUSED"
    original = by_request_id(request)
    assert decision(await bank.authorize(void(card, request, original=original))) == APPROVED
