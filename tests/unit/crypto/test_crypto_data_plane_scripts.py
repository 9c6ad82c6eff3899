"""Issuer scripts of the data plane over every backend: what the card opens; no item's fault in another's place."""

from typing import Any

import pytest
from data_plane_requests import (
    ALGORITHMS,
    DIGITS,
    MISSING,
    OTHER_DIGITS,
    OTHER_PAN,
    PAN,
    pin_of,
    script_request,
)
from key_store_bureau import handing_out_card_keys

from crypto.diversification import SessionMethod, card_key_usage, odd_parity, udk_factor_a
from crypto.errors import KeyNotFoundError, KeyUsageError, PinBlockInvalidError
from crypto.issuer_script import IssuerScript, ScriptCommand, ScriptContext, open_issuer_script
from crypto.key_store.data_plane import DataPlane
from crypto.keys import Key, KeyRef, KeyUsage
from crypto.pin_block import Pin
from crypto.script_pin_block import ScriptPinBlock, read_script_pin_block


def card_keys(store, suffix, *, pan=PAN) -> dict[str, Key]:
    """The card's keys, by the primitive that every backend has."""
    keys = {}
    for family, usage in (("ac", KeyUsage.IMK_AC), ("smi", KeyUsage.IMK_SMI), ("smc", KeyUsage.IMK_SMC)):
        ref = store.active(f"imk-{family}-{suffix}")
        with handing_out_card_keys(store):
            value = store.encrypt_under_master(ref, udk_factor_a(pan, "00"))
        keys[family] = Key(store.require_usable(ref, usage).cipher, card_key_usage(usage), value)
    return keys


@ALGORITHMS
def test_scripts_are_what_the_card_opens(any_store, plane, suffix):
    plain = script_request(
        any_store,
        suffix,
        command=ScriptCommand.APPLICATION_BLOCK,
        confidentiality_key=None,
        new_pin=None,
    )
    vis = script_request(any_store, suffix, cryptogram_key=any_store.active(f"imk-ac-{suffix}"))
    proving = script_request(
        any_store, suffix, cryptogram_key=vis.cryptogram_key, current_pin=pin_of(any_store, OTHER_DIGITS)
    )
    with handing_out_card_keys(any_store):
        commands = plane.generate_issuer_scripts([plain, script_request(any_store, suffix), vis, proving])
    keys = card_keys(any_store, suffix)
    context = ScriptContext(method=SessionMethod.PBOC, atc=7, arqc=bytes(8))
    opened = [
        open_issuer_script(IssuerScript(command), context, udk_smi=keys["smi"], udk_smc=keys["smc"])
        for command in commands
    ]
    assert [one.command for one in opened] == [
        ScriptCommand.APPLICATION_BLOCK,
        ScriptCommand.PIN_CHANGE,
        ScriptCommand.PIN_CHANGE,
        ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN,
    ]
    of_card = {"pin_block": ScriptPinBlock.VIS, "udk_ac": keys["ac"]}
    pins = [
        read_script_pin_block(opened[1].data, pin_block=ScriptPinBlock.ISO_2),
        read_script_pin_block(opened[2].data, **of_card),
        read_script_pin_block(opened[3].data, **of_card, current_pin=Pin(OTHER_DIGITS)),
    ]
    assert pins == [Pin(DIGITS)] * 3


def test_faults_of_scripts_stay_in_their_places(any_store, plane):
    other = any_store.active("imk-ac-sm4")
    unreadable = pin_of(any_store, pan=OTHER_PAN)
    unreadable.pan = PAN
    trials = [
        (KeyUsageError, {"integrity_key": other}),
        (KeyUsageError, {"confidentiality_key": other}),
        (KeyUsageError, {"cryptogram_key": any_store.active("imk-smi-sm4")}),
        (KeyNotFoundError, {"integrity_key": MISSING}),
        (KeyUsageError, {"session_method": SessionMethod.EMV_COMMON}),
        (PinBlockInvalidError, {"new_pin": unreadable}),
        (PinBlockInvalidError, {"current_pin": unreadable, "cryptogram_key": other}),
        (ValueError, {"arqc": bytes(7)}),
        (ValueError, {"pan": "1"}),
    ]
    good = script_request(any_store, "sm4")
    mixed = [one for _, bad in trials for one in (good, script_request(any_store, "sm4", **bad))]
    results = plane.generate_issuer_scripts(mixed)
    assert {type(result) for result in results[::2]} == {bytes}
    assert [type(result) for result in results[1::2]] == [kind for kind, _ in trials]


def test_a_command_takes_the_parts_of_its_own_alone(any_store, plane):
    pin, key, other = pin_of(any_store), any_store.active("imk-smc-sm4"), any_store.active("imk-ac-sm4")
    bare = {"confidentiality_key": None, "new_pin": None}
    plain = {**bare, "command": ScriptCommand.APPLICATION_BLOCK}
    mismatches = [
        {"command": ScriptCommand.APPLICATION_BLOCK},
        {**plain, "new_pin": pin},
        {**plain, "current_pin": pin},
        {**plain, "confidentiality_key": key},
        {**plain, "cryptogram_key": other},
        bare,
        {"new_pin": None},
        {"confidentiality_key": None},
        {"current_pin": pin},
        {"command": ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN, "cryptogram_key": other},
        {**bare, "command": ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN},
    ]
    requests = [script_request(any_store, "sm4", **changes) for changes in mismatches]
    assert {type(result) for result in plane.generate_issuer_scripts(requests)} == {ValueError}
    fitting = [
        (plain, "841e0000"),
        ({}, "84240002"),
        ({"current_pin": pin, "cryptogram_key": other}, "84240001"),
        (
            {
                "command": ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN,
                "current_pin": pin,
                "cryptogram_key": other,
            },
            "84240001",
        ),
    ]
    scripts = plane.generate_issuer_scripts(
        [script_request(any_store, "sm4", **changes) for changes, _ in fitting]
    )
    assert [script[:4].hex() for script in scripts] == [header for _, header in fitting]


def test_scripts_of_a_batch_ask_each_master_key_once(own_store, monkeypatch):
    plane, asked = DataPlane(own_store), []
    requests = []
    for n in range(40):
        suffix, pan = ("sm4", "tdes")[n % 2], f"62170000100123456{n:02d}"
        changes = {"pan": pan, "new_pin": pin_of(own_store, pan=pan)}
        if n % 4 >= 2:
            changes |= {
                "cryptogram_key": own_store.active(f"imk-ac-{suffix}"),
                "current_pin": pin_of(own_store, OTHER_DIGITS, pan=pan),
            }
        requests.append(script_request(own_store, suffix, **changes))
    one_by_one = [plane.generate_issuer_scripts([request])[0] for request in requests]
    for method in ("encrypt_under_master", "decrypt_under_master"):
        right = getattr(own_store, method)

        def counted(ref: KeyRef, blocks: bytes, right: Any = right) -> bytes:
            asked.append(ref.name)
            return right(ref, blocks)

        monkeypatch.setattr(own_store, method, counted)
    assert plane.generate_issuer_scripts(requests) == one_by_one
    assert {type(script) for script in one_by_one} == {bytes}
    masters = [f"imk-{family}-{suffix}" for family in ("smi", "ac", "smc") for suffix in ("sm4", "tdes")]
    assert sorted(asked) == sorted([*masters, "zpk-sm4"])


@pytest.mark.parametrize("method", list(SessionMethod), ids=lambda method: method.name)
def test_the_vis_block_shows_parity_as_the_card_has_it(own_store, method):
    """EMV puts 3DES keys into cards with odd parity, PBOC as computed: one block in sixteen cannot tell."""
    plane, masked = DataPlane(own_store), []
    master = own_store.active("imk-ac-tdes")
    for n in range(20):
        pan = f"62170000100123456{n:02d}"
        request = script_request(
            own_store,
            "tdes",
            pan=pan,
            session_method=method,
            new_pin=pin_of(own_store, pan=pan),
            cryptogram_key=master,
        )
        [command] = plane.generate_issuer_scripts([request])
        keys = card_keys(own_store, "tdes", pan=pan)
        context = ScriptContext(method=method, atc=7, arqc=bytes(8))
        script = open_issuer_script(IssuerScript(command), context, udk_smi=keys["smi"], udk_smc=keys["smc"])
        plain = bytes.fromhex(f"0{len(DIGITS):x}{DIGITS}".ljust(16, "f"))
        mask = bytes(a ^ b for a, b in zip(script.data, plain, strict=True))[4:]
        value = keys["ac"].value[4:8]
        assert mask == (odd_parity(value) if method is SessionMethod.EMV_COMMON else value)
        masked.append(odd_parity(value) != value)
    assert any(masked)


def test_scripts_are_written_under_verifying_versions_too(own_store):
    for name in ("imk-smi-sm4", "imk-smc-sm4", "imk-ac-sm4"):
        own_store.rotate(name)
    old = script_request(
        own_store,
        "sm4",
        integrity_key=KeyRef("imk-smi-sm4", 1),
        confidentiality_key=KeyRef("imk-smc-sm4", 1),
        cryptogram_key=KeyRef("imk-ac-sm4", 1),
    )
    assert [type(result) for result in DataPlane(own_store).generate_issuer_scripts([old])] == [bytes]
