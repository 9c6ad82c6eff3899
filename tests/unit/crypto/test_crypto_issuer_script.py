"""Issuer scripts: what the issuer writes the card opens, for that transaction, that card and that command alone."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.cryptogram import generate_arqc, verify_arqc_generate_arpc
from crypto.diversification import (
    SessionMethod,
    derive_emv_common_session_key,
    derive_pboc_session_key,
    derive_udk,
)
from crypto.errors import CryptogramInvalidError, KeyUsageError, MacInvalidError, PinBlockInvalidError
from crypto.issuer_script import (
    IssuerScript,
    OpenedScript,
    ScriptCommand,
    ScriptContext,
    build_issuer_script,
    build_pin_change,
    decipher_script_data,
    encipher_script_data,
    open_issuer_script,
    script_mac,
    verify_script_mac,
)
from crypto.keys import Cipher, Key, KeyUsage
from crypto.pin_block import Pin
from crypto.script_pin_block import ScriptPinBlock, read_script_pin_block, write_script_pin_block

ARQC = bytes.fromhex("08D05742D77EBC89")
PAN = "6217000010012345678"
KINDS = [
    (Cipher.TDES, SessionMethod.PBOC),
    (Cipher.SM4, SessionMethod.PBOC),
    (Cipher.AES, SessionMethod.PBOC),
    (Cipher.TDES, SessionMethod.EMV_COMMON),
    (Cipher.AES, SessionMethod.EMV_COMMON),
]
EACH_KIND = pytest.mark.parametrize(("cipher", "method"), KINDS)
PLAIN = [command for command in ScriptCommand if not command.has_data]


def card(cipher: Cipher, *, pan: str = PAN) -> dict[str, Key]:
    masters = {
        "udk_ac": Key(cipher, KeyUsage.IMK_AC, bytes(range(16))),
        "udk_smi": Key(cipher, KeyUsage.IMK_SMI, bytes(range(16, 32))),
        "udk_smc": Key(cipher, KeyUsage.IMK_SMC, bytes(range(32, 48))),
    }
    return {name: derive_udk(master, pan=pan, psn="00") for name, master in masters.items()}


def messaging(keys: dict[str, Key]) -> dict[str, Key]:
    return {"udk_smi": keys["udk_smi"], "udk_smc": keys["udk_smc"]}


def context(method: SessionMethod, **changes: object) -> ScriptContext:
    return ScriptContext(**{"method": method, "atc": 0x1C, "arqc": ARQC, **changes})


def pin_change(cipher: Cipher, method: SessionMethod, *, current: Pin | None = None) -> IssuerScript:
    return build_pin_change(
        context(method), **card(cipher), pin=Pin("135790"), pin_block=ScriptPinBlock.VIS, current_pin=current
    )


@pytest.mark.parametrize(
    ("master", "udk", "session"),
    [
        (KeyUsage.IMK_AC, KeyUsage.UDK_AC, KeyUsage.SESSION_AC),
        (KeyUsage.IMK_SMI, KeyUsage.UDK_SMI, KeyUsage.SESSION_SMI),
        (KeyUsage.IMK_SMC, KeyUsage.UDK_SMC, KeyUsage.SESSION_SMC),
    ],
)
def test_a_key_family_stays_a_family_down_to_the_session(master, udk, session):
    imk = Key(Cipher.TDES, master, bytes(range(16)))
    card_key = derive_udk(imk, pan=PAN, psn="00")
    assert card_key.usage is udk
    assert derive_pboc_session_key(card_key, atc=1).usage is session
    assert derive_emv_common_session_key(card_key, diversifier=ARQC).usage is session
    for wrong in (
        lambda: derive_udk(card_key, pan=PAN, psn="00"),
        lambda: derive_pboc_session_key(imk, atc=1),
    ):
        with pytest.raises(KeyUsageError):
            wrong()


@EACH_KIND
@pytest.mark.parametrize("command", PLAIN)
def test_a_command_without_data_opens_as_itself(cipher, method, command):
    keys = messaging(card(cipher))
    script = build_issuer_script(command, context(method), udk_smi=keys["udk_smi"])
    assert script.command[:5] == command.value + b"\x04"
    assert len(script.command) == 9
    assert open_issuer_script(script, context(method), **keys) == OpenedScript(command, b"")


def test_commands_are_those_of_the_standard():
    assert {command.name: command.value.hex() for command in ScriptCommand} == {
        "APPLICATION_BLOCK": "841e0000",
        "APPLICATION_UNBLOCK": "84180000",
        "PIN_UNBLOCK": "84240000",
        "PIN_CHANGE_WITH_CURRENT_PIN": "84240001",
        "PIN_CHANGE": "84240002",
    }


@EACH_KIND
@given(
    digits=st.text("0123456789", min_size=4, max_size=12),
    current=st.none() | st.text("0123456789", min_size=4, max_size=12).map(Pin),
    atc=st.integers(0, 0xFFFF),
    arqc=st.binary(min_size=8, max_size=8),
    mac_size=st.integers(4, 8),
    pin_block=st.sampled_from(ScriptPinBlock),
)
@settings(max_examples=60, deadline=None)
def test_the_card_finds_the_new_pin(cipher, method, digits, current, atc, arqc, mac_size, pin_block):
    transaction = context(method, atc=atc, arqc=arqc, mac_size=mac_size)
    keys, block_options = card(cipher), {"pin_block": pin_block}
    if pin_block is ScriptPinBlock.VIS:
        block_options |= {"udk_ac": keys["udk_ac"], "current_pin": current}
    script = build_pin_change(transaction, **messaging(keys), pin=Pin(digits), **block_options)
    assert len(script.command) == 5 + 16 + mac_size
    opened = open_issuer_script(script, transaction, **messaging(keys))
    assert read_script_pin_block(opened.data, **block_options).digits == digits
    is_vis_with_current = block_options.get("current_pin") is not None
    assert (opened.command is ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN) == is_vis_with_current


@EACH_KIND
@pytest.mark.parametrize("command", [ScriptCommand.APPLICATION_BLOCK, ScriptCommand.PIN_CHANGE])
def test_every_changed_byte_and_every_truncation_is_refused(cipher, method, command):
    keys = messaging(card(cipher))
    script = (
        pin_change(cipher, method)
        if command.has_data
        else build_issuer_script(command, context(method), udk_smi=keys["udk_smi"])
    ).command
    open_issuer_script(IssuerScript(script), context(method), **keys)
    wrongs = [script[:size] for size in range(len(script))] + [script + b"\x00"]
    for bit in range(8 * len(script)):
        wrongs.append((int.from_bytes(script) ^ 1 << bit).to_bytes(len(script)))
    for size in range(5, len(script)):
        wrongs.append(script[:4] + bytes([size - 5]) + script[5:size])
    for wrong in wrongs:
        with pytest.raises(MacInvalidError):
            open_issuer_script(IssuerScript(wrong), context(method), **keys)


@EACH_KIND
def test_a_script_of_another_transaction_or_card_is_refused(cipher, method):
    script, keys = pin_change(cipher, method), messaging(card(cipher))
    for other in ({"atc": 0x1D}, {"arqc": bytes(8)}, {"mac_size": 8}):
        with pytest.raises(MacInvalidError):
            open_issuer_script(script, context(method, **other), **keys)
    with pytest.raises(MacInvalidError):
        open_issuer_script(script, context(method), **messaging(card(cipher, pan="6217000010012345677")))


def test_a_script_of_the_other_method_is_refused():
    script, keys = pin_change(Cipher.TDES, SessionMethod.PBOC), messaging(card(Cipher.TDES))
    with pytest.raises(MacInvalidError):
        open_issuer_script(script, context(SessionMethod.EMV_COMMON), **keys)


@EACH_KIND
def test_an_authentic_script_that_deciphers_to_nothing_is_refused(cipher, method):
    keys = card(cipher)
    other = Key(cipher, KeyUsage.UDK_SMC, bytes(range(90, 106)))
    with pytest.raises(MacInvalidError):
        open_issuer_script(
            pin_change(cipher, method), context(method), udk_smi=keys["udk_smi"], udk_smc=other
        )


@pytest.mark.parametrize("header", ["84160000", "84240003", "84DA0000"])
def test_an_authentic_command_that_is_not_known_is_refused(header):
    transaction, keys = context(SessionMethod.PBOC), messaging(card(Cipher.SM4))
    command = bytes.fromhex(header) + b"\x04"
    message = command + b"\x00\x1c" + ARQC
    mac = script_mac(transaction.session_key(keys["udk_smi"]), message)
    with pytest.raises(MacInvalidError):
        open_issuer_script(IssuerScript(command + mac), transaction, **keys)


@pytest.mark.parametrize(
    ("command", "enciphered"), [(ScriptCommand.PIN_CHANGE, b""), (ScriptCommand.APPLICATION_BLOCK, bytes(16))]
)
def test_an_authentic_command_with_or_without_data_against_its_kind_is_refused(command, enciphered):
    transaction, keys = context(SessionMethod.PBOC), messaging(card(Cipher.SM4))
    header = command.value + bytes([len(enciphered) + 4])
    message = header + b"\x00\x1c" + ARQC + enciphered
    mac = script_mac(transaction.session_key(keys["udk_smi"]), message)
    with pytest.raises(MacInvalidError):
        open_issuer_script(IssuerScript(header + enciphered + mac), transaction, **keys)


@pytest.mark.parametrize("told", [0, 3, 5, 255])
def test_an_authentic_command_of_another_length_than_it_tells_is_refused(told):
    transaction, keys = context(SessionMethod.PBOC), messaging(card(Cipher.SM4))
    header = ScriptCommand.PIN_UNBLOCK.value + bytes([told])
    mac = script_mac(transaction.session_key(keys["udk_smi"]), header + b"\x00\x1c" + ARQC)
    with pytest.raises(MacInvalidError):
        open_issuer_script(IssuerScript(header + mac), transaction, **keys)


def test_sm4_has_no_emv_common_session_key():
    keys = card(Cipher.SM4)
    with pytest.raises(KeyUsageError):
        build_issuer_script(
            ScriptCommand.PIN_UNBLOCK, context(SessionMethod.EMV_COMMON), udk_smi=keys["udk_smi"]
        )


def test_keys_of_another_family_are_refused():
    keys, transaction = card(Cipher.SM4), context(SessionMethod.PBOC)
    smi, smc, ac = keys["udk_smi"], keys["udk_smc"], keys["udk_ac"]
    change = {"pin": Pin("1234"), "pin_block": ScriptPinBlock.VIS}
    script = pin_change(Cipher.SM4, SessionMethod.PBOC)
    session_key = transaction.session_key(ac)
    for misuse in (
        lambda: build_issuer_script(ScriptCommand.PIN_UNBLOCK, transaction, udk_smi=smc),
        lambda: build_pin_change(transaction, udk_smi=smc, udk_smc=smi, udk_ac=ac, **change),
        lambda: build_pin_change(transaction, udk_smi=smi, udk_smc=smi, udk_ac=ac, **change),
        lambda: build_pin_change(transaction, udk_smi=smi, udk_smc=smc, udk_ac=smi, **change),
        lambda: open_issuer_script(script, transaction, udk_smi=ac, udk_smc=smc),
        lambda: open_issuer_script(script, transaction, udk_smi=smi, udk_smc=ac),
        lambda: script_mac(session_key, b""),
        lambda: verify_script_mac(session_key, b"", mac=bytes(4)),
        lambda: encipher_script_data(session_key, b"1", method=SessionMethod.PBOC),
        lambda: decipher_script_data(session_key, bytes(16), method=SessionMethod.PBOC),
    ):
        with pytest.raises(KeyUsageError):
            misuse()


def test_arguments_that_do_not_go_together_are_refused():
    keys, transaction, pin = card(Cipher.SM4), context(SessionMethod.PBOC), Pin("1234")
    session_smc = transaction.session_key(keys["udk_smc"])
    session_smi = transaction.session_key(keys["udk_smi"])
    vis, iso_2 = ScriptPinBlock.VIS, ScriptPinBlock.ISO_2
    for wrong in (
        lambda: build_issuer_script(ScriptCommand.PIN_CHANGE, transaction, udk_smi=keys["udk_smi"]),
        lambda: write_script_pin_block(pin, pin_block=vis),
        lambda: write_script_pin_block(pin, pin_block=iso_2, udk_ac=keys["udk_ac"]),
        lambda: write_script_pin_block(pin, pin_block=iso_2, current_pin=pin),
        lambda: context(SessionMethod.PBOC, atc=65536),
        lambda: context(SessionMethod.PBOC, atc=-1),
        lambda: context(SessionMethod.PBOC, arqc=bytes(7)),
        lambda: context(SessionMethod.PBOC, mac_size=3),
        lambda: context(SessionMethod.PBOC, mac_size=9),
        lambda: script_mac(session_smi, b"", size=3),
        lambda: script_mac(session_smi, b"", size=9),
        lambda: encipher_script_data(session_smc, b"", method=SessionMethod.PBOC),
        lambda: encipher_script_data(session_smc, bytes(232), method=SessionMethod.PBOC),
    ):
        with pytest.raises(ValueError, match=r"."):
            wrong()


def test_a_vis_block_of_another_card_is_refused():
    block = write_script_pin_block(
        Pin("1234"), pin_block=ScriptPinBlock.VIS, udk_ac=card(Cipher.SM4)["udk_ac"]
    )
    other = card(Cipher.SM4, pan="6217000010012345677")["udk_ac"]
    with pytest.raises(PinBlockInvalidError):
        read_script_pin_block(block, pin_block=ScriptPinBlock.VIS, udk_ac=other)


def test_a_current_pin_of_other_first_digits_is_refused():
    vis = {"pin_block": ScriptPinBlock.VIS, "udk_ac": card(Cipher.TDES)["udk_ac"]}
    block = write_script_pin_block(Pin("1234"), **vis, current_pin=Pin("5678"))
    assert read_script_pin_block(block, **vis, current_pin=Pin("5678")) == Pin("1234")
    for other in (Pin("6678"), Pin("5778"), None):
        with pytest.raises(PinBlockInvalidError):
            read_script_pin_block(block, **vis, current_pin=other)


@pytest.mark.parametrize(
    "block",
    [
        "",
        "241234FFFFFFFF",
        "241234FFFFFFFFFFFF",
        "141234FFFFFFFFFF",
        "231234FFFFFFFFFF",
        "24123AFFFFFFFFFF",
        "241234FFFFFFFFF0",
        "23123FFFFFFFFFFF",
        "2D1234567890123F",
        "2F1234567890123F",
        "20FFFFFFFFFFFFFF",
    ],
)
def test_a_malformed_format_2_block_is_refused(block):
    assert read_script_pin_block(bytes.fromhex("241234FFFFFFFFFF"), pin_block=ScriptPinBlock.ISO_2) == Pin(
        "1234"
    )
    with pytest.raises(PinBlockInvalidError):
        read_script_pin_block(bytes.fromhex(block), pin_block=ScriptPinBlock.ISO_2)


@pytest.mark.parametrize("method", SessionMethod)
@pytest.mark.parametrize("enciphered", [b"", bytes(7), bytes(8), bytes(16)])
def test_data_that_is_not_padded_as_agreed_does_not_decipher(method, enciphered):
    session_key = Key(Cipher.TDES, KeyUsage.SESSION_SMC, bytes(range(16)))
    with pytest.raises(MacInvalidError):
        decipher_script_data(session_key, enciphered, method=method)


def test_no_pin_is_in_what_is_shown_or_pickled():
    keys, transaction = card(Cipher.SM4), context(SessionMethod.PBOC)
    script = pin_change(Cipher.SM4, SessionMethod.PBOC)
    opened = open_issuer_script(script, transaction, **messaging(keys))
    iso_2 = OpenedScript(ScriptCommand.PIN_CHANGE, bytes.fromhex("26135790FFFFFFFF"))
    for shown in (script, opened, iso_2, [iso_2]):
        assert "135790" not in repr(shown)
        assert "5y\\x90" not in repr(shown)
        assert "****" in repr(shown)
    with pytest.raises(TypeError):
        pickle.dumps(Pin("135790"))


@pytest.mark.parametrize("cipher", [Cipher.TDES, Cipher.SM4, Cipher.AES])
def test_only_the_cards_own_cryptogram_is_answered(cipher):
    session_key = derive_pboc_session_key(card(cipher)["udk_ac"], atc=0x1C)
    arqc = generate_arqc(session_key, b"data")
    assert len(verify_arqc_generate_arpc(session_key, b"data", arqc=arqc, arc=b"00")) == 8
    for wrong in (
        b"",
        arqc[:7],
        arqc + b"\x00",
        *((int.from_bytes(arqc) ^ 1 << bit).to_bytes(8) for bit in range(64)),
    ):
        with pytest.raises(CryptogramInvalidError):
            verify_arqc_generate_arpc(session_key, b"data", arqc=wrong, arc=b"00")
    with pytest.raises(CryptogramInvalidError):
        verify_arqc_generate_arpc(session_key, b"datb", arqc=arqc, arc=b"00")
    with pytest.raises(ValueError, match="2 bytes"):
        verify_arqc_generate_arpc(session_key, b"data", arqc=arqc, arc=b"0")
    with pytest.raises(KeyUsageError):
        verify_arqc_generate_arpc(card(cipher)["udk_ac"], b"data", arqc=arqc, arc=b"00")
