"""What is stored of PINs and under which keys: sealed, through rotations; and keys that may not do it."""

import asyncio

from core_under_test import CALL_S, GRANTS_IN_FORCE_S, Caller, Core, changed, new_id, refusal_of
from pin_calls import change, issue, tries, verify, with_pin
from pin_pad import OTHER, RIGHT, THIRD, WRONG, PinPad, key, pin_issue
from virtual_card import VirtualCard

from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import EncryptedPin
from crypto.keys import KeyUsage
from crypto.pin_block import Pin, PinBlockFormat
from crypto.pin_verification import Ibm3624Layout, generate_pin_offset


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
