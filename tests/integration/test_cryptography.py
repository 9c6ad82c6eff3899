"""Cryptography that keeps nothing, through gRPC: each answer against an independent computation, and each refusal."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import psec
import pyemv
import pytest
import pytest_asyncio
from core_under_test import CALL_S, EVERYTHING, GRANTS_IN_FORCE_S, Caller, Core, changed, refusal_of
from google.protobuf.message import Message
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import (
    FORMATS,
    ISO_0,
    ISO_1,
    ISO_3,
    ISO_4,
    OTHER,
    RIGHT,
    SM4_0,
    SUFFIXES,
    THIRD,
    PinPad,
    format_name,
    key,
    zpk,
)

from crypto import macs
from crypto.blocks import encrypt_ecb
from crypto.cryptogram import generate_arpc_method_1, generate_arpc_method_2, generate_arqc
from crypto.diversification import (
    SessionMethod,
    derive_emv_common_session_key,
    derive_pboc_session_key,
    derive_udk,
    derive_udk_option_a,
)
from crypto.dukpt_tdes import DukptKeyUse
from crypto.issuer_script import IssuerScript, ScriptCommand, ScriptContext, open_issuer_script
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding
from crypto.pin_block import Pin
from crypto.script_pin_block import ScriptPinBlock, read_script_pin_block

# The two call the library's 3DES by its old name and with short keys. The core runs without this filter.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*TripleDES:cryptography.utils.CryptographyDeprecationWarning"
)

PAN, PSN, ATC = "6217000010012345677", "01", 0x01AB
DATA = bytes(range(3, 41))
MESSAGE = b"0200 one message of a terminal, neither short nor whole blocks"
ARQC = bytes.fromhex("A1B2C3D4E5F60718")
CIPHERS = {"sm4": Cipher.SM4, "tdes": Cipher.TDES, "aes": Cipher.AES}
PBOC, EMV = pb.SESSION_KEY_METHOD_PBOC, pb.SESSION_KEY_METHOD_EMV_COMMON
METHODS = [*itertools.product(CIPHERS, (PBOC,)), ("tdes", EMV), ("aes", EMV)]
METHOD_2 = Padding.ONE_THEN_ZEROS


class MacKey(NamedTuple):
    """A MAC key that the tests make, and its algorithm over the whole block."""

    cipher: Cipher
    usage: KeyUsage
    whole: Callable[[Key, bytes], bytes]


MAC_KEYS = {
    "t-mac-1-sm4": MacKey(
        Cipher.SM4, KeyUsage.MAC_ALGORITHM_1, lambda k, m: macs.mac_algorithm_1(k, m, padding=METHOD_2)
    ),
    "t-mac-1-aes": MacKey(
        Cipher.AES,
        KeyUsage.MAC_ALGORITHM_1,
        lambda k, m: psec.mac.generate_cbc_mac(k.value, m, 2, algorithm=psec.mac.Algorithm.AES),
    ),
    "t-mac-1-tdes": MacKey(
        Cipher.TDES, KeyUsage.MAC_ALGORITHM_1, lambda k, m: psec.mac.generate_cbc_mac(k.value, m, 2)
    ),
    "t-mac-3-tdes": MacKey(
        Cipher.TDES,
        KeyUsage.MAC_ALGORITHM_3,
        lambda k, m: psec.mac.generate_retail_mac(k.value[:8], k.value[8:], m, 2),
    ),
    "t-cmac-sm4": MacKey(Cipher.SM4, KeyUsage.MAC_CMAC, macs.cmac_tag),
    "t-cmac-aes": MacKey(Cipher.AES, KeyUsage.MAC_CMAC, macs.cmac_tag),
    "t-cmac-tdes": MacKey(Cipher.TDES, KeyUsage.MAC_CMAC, macs.cmac_tag),
    "t-unionpay-sm4": MacKey(Cipher.SM4, KeyUsage.MAC_UNIONPAY, macs.unionpay_ecb_mac),
    "t-unionpay-tdes": MacKey(Cipher.TDES, KeyUsage.MAC_UNIONPAY, macs.unionpay_ecb_mac),
    "t-hmac": MacKey(Cipher.HMAC_SM3, KeyUsage.MAC_HMAC_SM3, macs.hmac_sm3),
}
# Versions 1 and 2, of which 1 only verifies.
ROTATED = {
    "t-rotated-mac": (Cipher.SM4, KeyUsage.MAC_CMAC),
    "t-rotated-cvk": (Cipher.TDES, KeyUsage.CARD_VERIFICATION),
    "t-rotated-zpk": (Cipher.SM4, KeyUsage.PIN_ENCRYPTION),
    "t-rotated-imk": (Cipher.SM4, KeyUsage.IMK_AC),
    "t-rotated-smi": (Cipher.SM4, KeyUsage.IMK_SMI),
}
# Without an active version, and not yet active.
RETIRED, UNBORN = "t-retired-mac", "t-unborn-mac"


@pytest_asyncio.fixture(scope="module", autouse=True)
async def keys(core: Core) -> AsyncIterator[None]:
    """Keys of these tests beside the shared ones, and participants with few of them, in force on every worker."""
    store = core.store
    for name, mac_key in MAC_KEYS.items():
        store.add_key(name, cipher=mac_key.cipher, usage=mac_key.usage)
    for name, (cipher, usage) in ROTATED.items():
        store.add_key(name, cipher=cipher, usage=usage)
        store.rotate(name)
    store.retire(store.add_key(RETIRED, cipher=Cipher.SM4, usage=KeyUsage.MAC_CMAC))
    store.generate(UNBORN, cipher=Cipher.SM4, usage=KeyUsage.MAC_CMAC)
    await core.add_participant("keyless-01", EVERYTHING | {"key": []})
    await core.add_participant("keyed-01", EVERYTHING | {"key": ["mac-sm4", "zpk-sm4"]})
    await asyncio.sleep(GRANTS_IN_FORCE_S)
    yield


@pytest.fixture
def pad(core: Core) -> PinPad:
    return PinPad(core.store)


def value_of(core: Core, name: str, usage: KeyUsage, version: int = 0) -> Key:
    ref = core.store.active(name)
    key: Key = core.store.lend(ref._replace(version=version or ref.version))
    assert key.usage is usage
    return key


async def ask(caller: Caller, rpc: str, request: Message) -> Any:
    return await getattr(caller.cryptography, rpc)(request, timeout=CALL_S)


async def refused(caller: Caller, rpc: str, request: Message) -> tuple[str, str, str]:
    refusal = await refusal_of(ask(caller, rpc, request))
    return refusal.code.name, refusal.reason, refusal.field


def spoilt(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


# --- cryptograms


def session_of(core: Core, suffix: str, method: int, *, family: str = "ac", arqc: bytes = b"") -> Key:
    """A card's session key; 3DES under EMV by pyemv."""
    usage = KeyUsage[f"IMK_{family.upper()}"]
    imk = value_of(core, f"imk-{family}-{suffix}", usage)
    udk = derive_udk(imk, pan=PAN, psn=PSN)
    if method == PBOC:
        return derive_pboc_session_key(udk, atc=ATC)
    diversifier = arqc or ATC.to_bytes(2) + bytes(6)
    session_key = derive_emv_common_session_key(udk, diversifier=diversifier)
    if suffix == "tdes":
        independent = pyemv.kd.derive_common_sk(pyemv.kd.derive_icc_mk_a(imk.value, PAN, PSN), diversifier)
        assert session_key.value == independent
    return session_key


def arqc_check(core: Core, suffix: str, method: int = PBOC, **fields: Any) -> pb.VerifyArqcRequest:
    parts = {
        "key": key(f"imk-ac-{suffix}"),
        "pan": PAN,
        "psn": PSN,
        "atc": ATC,
        "data": DATA,
        "arqc": generate_arqc(session_of(core, suffix, method), DATA),
        "session_key_method": method,
    }
    return pb.VerifyArqcRequest(**parts | fields)


@pytest.mark.parametrize(("suffix", "method"), METHODS)
async def test_cryptogram_is_verified_and_answered(
    core: Core, bank: Caller, suffix: str, method: int
) -> None:
    session_key = session_of(core, suffix, method)
    request = arqc_check(core, suffix, method)
    csu, proprietary = bytes.fromhex("03800000"), b"eight by"
    arpc_1 = generate_arpc_method_1(session_key, arqc=request.arqc, arc=b"00")
    arpc_2 = generate_arpc_method_2(session_key, arqc=request.arqc, csu=csu, proprietary=proprietary)
    if suffix == "tdes":
        assert request.arqc == pyemv.ac.generate_ac(session_key.value, DATA, pyemv.ac.PaddingType.EMV)
        assert arpc_1 == pyemv.ac.generate_arpc_1(session_key.value, request.arqc, b"00")
        assert arpc_2 == pyemv.ac.generate_arpc_2(session_key.value, request.arqc, csu, proprietary)
    for answered, arpc in (
        (request, b""),
        (changed(request, method_1=pb.ArpcMethod1(arc=b"00")), arpc_1),
        (changed(request, method_2=pb.ArpcMethod2(csu=csu, proprietary=proprietary)), arpc_2),
    ):
        answer = await ask(bank, "VerifyArqc", answered)
        assert (answer.verified, answer.arpc) == (True, arpc)
        wrong = await ask(bank, "VerifyArqc", changed(answered, arqc=spoilt(request.arqc)))
        assert wrong == pb.VerifyArqcResponse()


async def test_cryptogram_of_anything_else_is_not_verified(core: Core, bank: Caller) -> None:
    request = arqc_check(core, "sm4", method_1=pb.ArpcMethod1(arc=b"00"))
    assert (await ask(bank, "VerifyArqc", request)).verified
    unspecified = changed(request, session_key_method=pb.SESSION_KEY_METHOD_UNSPECIFIED)
    assert await ask(bank, "VerifyArqc", unspecified) == await ask(bank, "VerifyArqc", request)
    for wrong in (
        {"atc": ATC + 1},
        {"pan": "6228480012345678903"},
        {"psn": "00"},
        {"psn": ""},
        {"data": DATA + b"\x00"},
        {"data": spoilt(DATA)},
        {"key": key("t-rotated-imk", 1)},
        {"session_key_method": EMV},
    ):
        answer = await ask(bank, "VerifyArqc", changed(request, **wrong))
        assert answer == pb.VerifyArqcResponse(), wrong


# --- PIN translation

ALLOWED = {
    ISO_1: {*FORMATS},
    ISO_0: {ISO_0, ISO_3, ISO_4, SM4_0},
    ISO_3: {ISO_3, ISO_4, SM4_0},
    ISO_4: {ISO_4, SM4_0},
    SM4_0: {ISO_4, SM4_0},
}


def translation(
    source: pb.EncryptedPin, target: int, pan: str = PAN, **fields: Any
) -> pb.TranslatePinRequest:
    parts = {"pan": pan, "source": source, "target_key": key(zpk(target)), "target_format": target}
    return pb.TranslatePinRequest(**parts | fields)


def independently_opened(core: Core, block: bytes, layout: int) -> str | None:
    """What psec reads; None for layouts it does not know."""
    zone_key = value_of(core, zpk(layout), KeyUsage.PIN_ENCRYPTION).value
    if layout == ISO_4:
        return psec.pinblock.decipher_pinblock_iso_4(zone_key, block, PAN)
    clear = psec.des.decrypt_tdes_ecb(zone_key, block) if layout in {ISO_0, ISO_3} else b""
    if layout == ISO_0:
        return psec.pinblock.decode_pinblock_iso_0(clear, PAN)
    return psec.pinblock.decode_pinblock_iso_3(clear, PAN) if layout == ISO_3 else None


@pytest.mark.parametrize("source", FORMATS, ids=format_name)
async def test_pin_is_translated_to_formats_that_are_not_weaker_only(
    core: Core, bank: Caller, pad: PinPad, source: int
) -> None:
    terminal = pad.terminal(SUFFIXES[source])
    for target in FORMATS:
        for pin in (pad.pin(THIRD, PAN, layout=source), terminal.pin(THIRD, PAN, source)):
            request = translation(pin, target)
            if target not in ALLOWED[source]:
                assert await refused(bank, "TranslatePin", request) == (
                    "FAILED_PRECONDITION",
                    "PIN_FORMAT_WEAKER",
                    "target_format",
                )
                continue
            block = (await ask(bank, "TranslatePin", request)).pin_block
            assert pad.opened(block, PAN, layout=target) == THIRD
            assert independently_opened(core, block, target) in {THIRD, None}


async def test_pin_block_that_does_not_decode_is_refused(bank: Caller, pad: PinPad) -> None:
    for layout in (ISO_4, SM4_0):
        pin = pad.pin(RIGHT, PAN, layout=layout)
        other_pan = translation(pin, SM4_0, pan="6228480012345678903")
        changed_block = translation(changed(pin, block=spoilt(pin.block)), SM4_0)
        other_key = translation(changed(pin, key=key("t-rotated-zpk")), SM4_0)
        wrongs = [other_pan, changed_block] + ([other_key] if layout == SM4_0 else [])
        for request in wrongs:
            assert await refused(bank, "TranslatePin", request) == (
                "INVALID_ARGUMENT",
                "PIN_BLOCK_INVALID",
                "source",
            )


async def test_dukpt_block_of_another_transaction_does_not_decode(bank: Caller, pad: PinPad) -> None:
    for suffix, layout in (("aes", ISO_4), ("sm4", SM4_0)):
        terminal = pad.terminal(suffix)
        first, second = terminal.pin(RIGHT, PAN, layout), terminal.pin(RIGHT, PAN, layout)
        assert first.block != second.block
        request = translation(changed(first, ksn=second.ksn), SM4_0)
        assert (await refused(bank, "TranslatePin", request))[1:] == ("PIN_BLOCK_INVALID", "source")


# --- MACs


def mac_request(name: str, size: int = 0, version: int = 0, **fields: Any) -> pb.GenerateMacRequest:
    return pb.GenerateMacRequest(
        **{"key": key(name, version), "message": MESSAGE, "mac_bytes": size} | fields
    )


def mac_check(name: str, mac: bytes, version: int = 0, **fields: Any) -> pb.VerifyMacRequest:
    return pb.VerifyMacRequest(**{"key": key(name, version), "message": MESSAGE, "mac": mac} | fields)


@pytest.mark.parametrize("name", MAC_KEYS)
async def test_mac_is_that_of_the_keys_algorithm(core: Core, bank: Caller, name: str) -> None:
    mac_key = MAC_KEYS[name]
    whole = mac_key.whole(value_of(core, name, mac_key.usage), MESSAGE)
    for size in (0, 8, len(whole)):
        answer = await ask(bank, "GenerateMac", mac_request(name, size))
        assert answer.mac == whole[: size or 8]
        assert (await ask(bank, "VerifyMac", mac_check(name, answer.mac))).verified
        for wrong in (
            mac_check(name, spoilt(answer.mac)),
            mac_check(name, answer.mac, message=MESSAGE + b"\x80"),
            mac_check("t-rotated-mac", answer.mac[:16]),
        ):
            assert await ask(bank, "VerifyMac", wrong) == pb.VerifyMacResponse()


PADDINGS = {
    pb.MAC_PADDING_ZEROS: 1,
    pb.MAC_PADDING_ONE_THEN_ZEROS: 2,
    pb.MAC_PADDING_LENGTH_THEN_ZEROS: 3,
}


@pytest.mark.parametrize("padding", PADDINGS)
async def test_padding_is_the_callers_choice_for_algorithms_1_and_3(
    core: Core, bank: Caller, padding: int
) -> None:
    for name in ("t-mac-1-tdes", "t-mac-3-tdes"):
        value = value_of(core, name, MAC_KEYS[name].usage).value
        expected = (
            psec.mac.generate_cbc_mac(value, MESSAGE, PADDINGS[padding])
            if "1" in name
            else psec.mac.generate_retail_mac(value[:8], value[8:], MESSAGE, PADDINGS[padding])
        )
        assert (await ask(bank, "GenerateMac", mac_request(name, padding=padding))).mac == expected
        assert (await ask(bank, "VerifyMac", mac_check(name, expected, padding=padding))).verified
    for name in ("t-cmac-sm4", "t-unionpay-tdes", "t-hmac"):
        expected = ("INVALID_ARGUMENT", "MALFORMED_FIELD", "padding")
        assert await refused(bank, "GenerateMac", mac_request(name, padding=padding)) == expected
        assert await refused(bank, "VerifyMac", mac_check(name, bytes(8), padding=padding)) == expected


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("t-mac-3-tdes", (9, 32)),
        ("t-cmac-sm4", (17,)),
        ("t-unionpay-sm4", (4, 17)),
        ("t-unionpay-tdes", (9,)),
    ],
)
async def test_mac_longer_or_shorter_than_the_algorithm_gives_is_refused(
    bank: Caller, name: str, sizes: tuple[int, ...]
) -> None:
    for size in sizes:
        refusal = await refused(bank, "GenerateMac", mac_request(name, size))
        assert refusal == ("INVALID_ARGUMENT", "MALFORMED_FIELD", "mac_bytes")
        refusal = await refused(bank, "VerifyMac", mac_check(name, bytes(size)))
        assert refusal == ("INVALID_ARGUMENT", "MALFORMED_FIELD", "mac")


@pytest.mark.parametrize("suffix", CIPHERS)
async def test_mac_of_a_dukpt_terminal_is_verified_and_answered(
    bank: Caller, pad: PinPad, suffix: str
) -> None:
    terminal = pad.terminal(suffix)
    ksn, name = terminal.begin(), terminal.key_name

    def mac(use: DukptKeyUse) -> bytes:
        mac_key = terminal.working_key(use)
        if suffix == "tdes":
            return psec.mac.generate_retail_mac(mac_key.value[:8], mac_key.value[8:], MESSAGE, 2)
        return macs.cmac_tag(mac_key, MESSAGE, size=8)

    request, response = mac(DukptKeyUse.MAC_REQUEST), mac(DukptKeyUse.MAC_RESPONSE)
    assert (await ask(bank, "VerifyMac", mac_check(name, request, ksn=ksn))).verified
    assert (await ask(bank, "GenerateMac", mac_request(name, ksn=ksn))).mac == response
    # What the host says, it does not take for the terminal's word; nor one transaction for another.
    assert not (await ask(bank, "VerifyMac", mac_check(name, response, ksn=ksn))).verified
    assert not (await ask(bank, "VerifyMac", mac_check(name, request, ksn=terminal.begin()))).verified


# --- card verification values

SERVICE_CODES = {
    pb.CARD_VERIFICATION_KIND_CVV: "201",
    pb.CARD_VERIFICATION_KIND_ICVV: "999",
    pb.CARD_VERIFICATION_KIND_CVV2: "000",
}


@pytest.mark.parametrize("kind", SERVICE_CODES)
async def test_card_verification_value_is_computed_and_checked(core: Core, bank: Caller, kind: int) -> None:
    cvk = value_of(core, "cvk", KeyUsage.CARD_VERIFICATION).value
    stripe = kind == pb.CARD_VERIFICATION_KIND_CVV
    for pan in (PAN, "6228480012345678", "621669123456"):
        expected = psec.cvv.generate_cvv(cvk, pan, "2812", SERVICE_CODES[kind])
        parts = {
            "key": key("cvk"),
            "kind": kind,
            "pan": pan,
            "expiry": "2812",
            "service_code": "201" if stripe else "",
        }
        answer = await ask(bank, "GenerateCardVerification", pb.GenerateCardVerificationRequest(**parts))
        assert answer.card_verification_value == expected
        check = pb.VerifyCardVerificationRequest(**parts, card_verification_value=expected)
        assert (await ask(bank, "VerifyCardVerification", check)).verified
        wrong = f"{(int(expected) + 1) % 1000:03d}"
        wrongs = [changed(check, card_verification_value=wrong)]
        for request in wrongs:
            answer = await ask(bank, "VerifyCardVerification", request)
            assert answer == pb.VerifyCardVerificationResponse()


@pytest.mark.parametrize(
    ("kind", "service_code"),
    [
        (pb.CARD_VERIFICATION_KIND_CVV, "000"),
        (pb.CARD_VERIFICATION_KIND_CVV, "999"),
        (pb.CARD_VERIFICATION_KIND_CVV, ""),
        (pb.CARD_VERIFICATION_KIND_ICVV, "999"),
        (pb.CARD_VERIFICATION_KIND_CVV2, "000"),
    ],
)
async def test_service_code_of_another_kind_is_refused(bank: Caller, kind: int, service_code: str) -> None:
    parts = {"key": key("cvk"), "kind": kind, "pan": PAN, "expiry": "2812", "service_code": service_code}
    for rpc, request in (
        ("GenerateCardVerification", pb.GenerateCardVerificationRequest(**parts)),
        (
            "VerifyCardVerification",
            pb.VerifyCardVerificationRequest(**parts, card_verification_value="123"),
        ),
    ):
        assert await refused(bank, rpc, request) == ("INVALID_ARGUMENT", "MALFORMED_FIELD", "service_code")


# --- issuer scripts

PLAIN_COMMANDS = {
    pb.ISSUER_COMMAND_APPLICATION_BLOCK: ScriptCommand.APPLICATION_BLOCK,
    pb.ISSUER_COMMAND_APPLICATION_UNBLOCK: ScriptCommand.APPLICATION_UNBLOCK,
    pb.ISSUER_COMMAND_PIN_UNBLOCK: ScriptCommand.PIN_UNBLOCK,
}


def script(
    suffix: str, method: int, command: int = pb.ISSUER_COMMAND_PIN_UNBLOCK, **fields: Any
) -> pb.GenerateIssuerScriptRequest:
    parts = {
        "integrity_key": key(f"imk-smi-{suffix}"),
        "pan": PAN,
        "psn": PSN,
        "atc": ATC,
        "arqc": ARQC,
        "session_key_method": method,
        "command": command,
    }
    return pb.GenerateIssuerScriptRequest(**parts | fields)


def pin_change(
    pad: PinPad, suffix: str = "sm4", method: int = PBOC, **fields: Any
) -> pb.GenerateIssuerScriptRequest:
    parts = {"confidentiality_key": key(f"imk-smc-{suffix}"), "new_pin": pad.pin(OTHER, PAN)}
    return script(suffix, method, pb.ISSUER_COMMAND_PIN_CHANGE, **parts | fields)


def card_opens(core: Core, suffix: str, method: int, command: bytes) -> tuple[ScriptCommand, bytes, Key]:
    """What the card finds in a command, and the card's cryptogram key."""
    context = ScriptContext(
        method=SessionMethod.PBOC if method == PBOC else SessionMethod.EMV_COMMON, atc=ATC, arqc=ARQC
    )
    # What EMV personalises is in odd parity, which the VIS PIN block shows.
    derive = derive_udk if method == PBOC else derive_udk_option_a
    udks = {
        family: derive(
            value_of(core, f"imk-{family}-{suffix}", KeyUsage[f"IMK_{family.upper()}"]), pan=PAN, psn=PSN
        )
        for family in ("smi", "smc", "ac")
    }
    opened = open_issuer_script(IssuerScript(command), context, udk_smi=udks["smi"], udk_smc=udks["smc"])
    return opened.command, opened.data, udks["ac"]


@pytest.mark.parametrize(("suffix", "method"), METHODS)
@pytest.mark.parametrize("command", PLAIN_COMMANDS)
async def test_script_without_data_is_what_the_card_expects(
    core: Core, bank: Caller, suffix: str, method: int, command: int
) -> None:
    answer = await ask(bank, "GenerateIssuerScript", script(suffix, method, command))
    assert card_opens(core, suffix, method, answer.command)[:2] == (PLAIN_COMMANDS[command], b"")
    if suffix == "tdes":
        session_key = session_of(core, suffix, method, family="smi", arqc=ARQC)
        message = answer.command[:5] + ATC.to_bytes(2) + ARQC
        assert answer.command[5:] == pyemv.sm.generate_command_mac(session_key.value, message, 4)


@pytest.mark.parametrize(("suffix", "method"), METHODS)
async def test_script_of_a_pin_change_carries_the_pin(
    core: Core, bank: Caller, pad: PinPad, suffix: str, method: int
) -> None:
    iso_2 = await ask(bank, "GenerateIssuerScript", pin_change(pad, suffix, method))
    command, data, udk_ac = card_opens(core, suffix, method, iso_2.command)
    assert command is ScriptCommand.PIN_CHANGE
    assert read_script_pin_block(data, pin_block=ScriptPinBlock.ISO_2).digits == OTHER
    assert psec.pinblock.decode_pinblock_iso_2(data) == OTHER

    cryptogram_key = {"cryptogram_key": key(f"imk-ac-{suffix}")}
    vis = await ask(bank, "GenerateIssuerScript", pin_change(pad, suffix, method, **cryptogram_key))
    command, data, _ = card_opens(core, suffix, method, vis.command)
    assert command is ScriptCommand.PIN_CHANGE
    assert data == pyemv.sm.format_vis_pin_block(udk_ac.value, OTHER)

    terminal = pad.terminal("aes").pin(RIGHT, PAN, ISO_4)
    proving = await ask(
        bank, "GenerateIssuerScript", pin_change(pad, suffix, method, **cryptogram_key, current_pin=terminal)
    )
    command, data, _ = card_opens(core, suffix, method, proving.command)
    assert command is ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN
    opened = read_script_pin_block(data, pin_block=ScriptPinBlock.VIS, udk_ac=udk_ac, current_pin=Pin(RIGHT))
    assert opened.digits == OTHER
    assert OTHER.encode().hex() not in proving.command.hex()
    assert OTHER not in proving.command.hex()


async def test_script_with_fields_that_do_not_go_together_is_refused(bank: Caller, pad: PinPad) -> None:
    pin, other_key = pad.pin(OTHER, PAN), key("imk-smc-sm4")
    unblock = script("sm4", PBOC)
    trials = [
        (changed(unblock, new_pin=pin), "new_pin"),
        (changed(unblock, confidentiality_key=other_key), "confidentiality_key"),
        (changed(unblock, cryptogram_key=key("imk-ac-sm4")), "cryptogram_key"),
        (changed(unblock, current_pin=pin), "current_pin"),
        (pin_change(pad, new_pin=None), "new_pin"),
        (pin_change(pad, confidentiality_key=None), "confidentiality_key"),
        (pin_change(pad, current_pin=pin), "current_pin"),
        (changed(unblock, integrity_key=None), "integrity_key.name"),
    ]
    for request, field in trials:
        refusal = await refused(bank, "GenerateIssuerScript", request)
        assert refusal == ("INVALID_ARGUMENT", "MALFORMED_FIELD", field)


async def test_script_whose_pin_cannot_be_read_is_refused(bank: Caller, pad: PinPad) -> None:
    of_another = pad.pin(OTHER, "6228480012345678903")
    refusal = await refused(bank, "GenerateIssuerScript", pin_change(pad, new_pin=of_another))
    assert refusal == ("INVALID_ARGUMENT", "PIN_BLOCK_INVALID", "new_pin")
    proving = pin_change(pad, cryptogram_key=key("imk-ac-sm4"), current_pin=of_another)
    refusal = await refused(bank, "GenerateIssuerScript", proving)
    assert refusal[:2] == ("INVALID_ARGUMENT", "PIN_BLOCK_INVALID")


# --- keys: what each RPC refuses of them


def requests(core: Core) -> dict[str, tuple[Message, str, str]]:
    """Of each RPC, or key of an RPC: a valid request, the path of the key, and keys that are for something else."""
    pad = PinPad(core.store)
    pin = pad.pin(OTHER, PAN)
    cvv = {"kind": pb.CARD_VERIFICATION_KIND_CVV2, "pan": PAN, "expiry": "2812"}
    proving = pin_change(pad, cryptogram_key=key("imk-ac-sm4"), current_pin=pin)
    return {
        "VerifyArqc": (arqc_check(core, "sm4"), "key", "imk-smi-sm4 zpk-sm4 sealing"),
        "TranslatePin source": (
            translation(pin, SM4_0),
            "source.key",
            "cvk mac-sm4 zpk-tdes zpk-aes bdk-sm4 imk-ac-sm4 sealing",
        ),
        "TranslatePin target": (
            translation(pin, SM4_0),
            "target_key",
            "cvk mac-sm4 zpk-tdes zpk-aes bdk-sm4 kbpk-sm4",
        ),
        "GenerateMac": (mac_request("mac-sm4"), "key", "zpk-sm4 cvk bdk-sm4 sealing challenge"),
        "VerifyMac": (mac_check("mac-sm4", bytes(8)), "key", "zpk-sm4 cvk bdk-sm4 request-digest"),
        "GenerateCardVerification": (
            pb.GenerateCardVerificationRequest(key=key("cvk"), **cvv),
            "key",
            "zpk-tdes imk-ac-tdes mac-sm4",
        ),
        "VerifyCardVerification": (
            pb.VerifyCardVerificationRequest(key=key("cvk"), card_verification_value="123", **cvv),
            "key",
            "zpk-tdes imk-ac-tdes mac-sm4",
        ),
        "GenerateIssuerScript integrity": (proving, "integrity_key", "imk-ac-sm4 imk-smc-sm4 mac-sm4"),
        "GenerateIssuerScript secrecy": (proving, "confidentiality_key", "imk-ac-sm4 imk-smi-sm4 zpk-sm4"),
        "GenerateIssuerScript cryptogram": (proving, "cryptogram_key", "imk-smi-sm4 imk-smc-sm4"),
        "GenerateIssuerScript new": (proving, "new_pin.key", "imk-smi-sm4 zpk-aes cvk"),
        "GenerateIssuerScript current": (proving, "current_pin.key", "imk-smi-sm4 zpk-aes cvk"),
    }


NAMES = [
    "VerifyArqc",
    "TranslatePin source",
    "TranslatePin target",
    "GenerateMac",
    "VerifyMac",
    "GenerateCardVerification",
    "VerifyCardVerification",
    "GenerateIssuerScript integrity",
    "GenerateIssuerScript secrecy",
    "GenerateIssuerScript cryptogram",
    "GenerateIssuerScript new",
    "GenerateIssuerScript current",
]


def with_key(message: Any, path: str, reference: pb.KeyReference) -> Any:
    name, _, rest = path.partition(".")
    inner = with_key(getattr(message, name), rest, reference) if rest else reference
    return changed(message, **{name: inner})


@pytest.mark.parametrize("name", NAMES)
async def test_key_that_is_for_something_else_or_unknown_is_refused(
    core: Core, bank: Caller, name: str
) -> None:
    request, path, others = requests(core)[name]
    rpc = name.split()[0]
    await ask(bank, rpc, request)
    for other in others.split():
        wrong = with_key(request, path, key(other))
        assert await refused(bank, rpc, wrong) == ("FAILED_PRECONDITION", "KEY_USAGE", path), other
    for unknown in (key("no-such-key"), key("no-such-key", 1), key(others.split()[0], 9)):
        refusal = await refused(bank, rpc, with_key(request, path, unknown))
        assert refusal == ("NOT_FOUND", "KEY_UNKNOWN", path)
    refusal = await refused(bank, rpc, with_key(request, path, key("UPPER.case")))
    assert refusal == ("INVALID_ARGUMENT", "MALFORMED_FIELD", f"{path}.name")


@pytest.mark.parametrize("name", NAMES)
async def test_key_that_is_not_granted_is_refused_whether_or_not_it_exists(core: Core, name: str) -> None:
    request, path, _ = requests(core)[name]
    rpc = name.split()[0]
    keyless, keyed = core.caller("keyless-01"), core.caller("keyed-01")
    granted = with_key(request, path, key("mac-sm4"))
    answers = set()
    for foreign in (key("zpk-aes"), key("no-such-key"), key("no-such-key", 7)):
        answers.add(await refusal_of(ask(keyed, rpc, with_key(granted, path, foreign))))
    if len(_keys_of(request)) == 1:
        (refusal,) = answers
        assert (refusal.code.name, refusal.reason, refusal.field) == (
            "PERMISSION_DENIED",
            "KEY_NOT_GRANTED",
            path,
        )
    else:
        assert {(each.code.name, each.reason) for each in answers} == {
            ("PERMISSION_DENIED", "KEY_NOT_GRANTED")
        }
    refusal = await refusal_of(ask(keyless, rpc, request))
    assert (refusal.code.name, refusal.reason) == ("PERMISSION_DENIED", "KEY_NOT_GRANTED")


def _keys_of(message: Any) -> list[pb.KeyReference]:
    found = []
    for field, value in message.ListFields():
        if isinstance(value, pb.KeyReference):
            found.append(value)
        elif field.message_type is not None:
            found += _keys_of(value)
    return found


async def test_only_the_granted_keys_work(core: Core, pad: PinPad) -> None:
    keyed = core.caller("keyed-01")
    assert (await ask(keyed, "GenerateMac", mac_request("mac-sm4"))).mac
    assert (await ask(keyed, "TranslatePin", translation(pad.pin(RIGHT, PAN), SM4_0))).pin_block
    terminal = pad.terminal("sm4").pin(RIGHT, PAN, SM4_0)
    refusal = await refused(keyed, "TranslatePin", translation(terminal, SM4_0))
    assert refusal == ("PERMISSION_DENIED", "KEY_NOT_GRANTED", "source.key")


async def test_key_that_only_verifies_verifies_and_generates_nothing(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    mac = macs.cmac_tag(value_of(core, "t-rotated-mac", KeyUsage.MAC_CMAC, 1), MESSAGE, size=8)
    assert (await ask(bank, "VerifyMac", mac_check("t-rotated-mac", mac, 1))).verified
    assert not (await ask(bank, "VerifyMac", mac_check("t-rotated-mac", mac))).verified
    assert (await ask(bank, "GenerateMac", mac_request("t-rotated-mac", 0, 2))).mac

    cvv = {"kind": pb.CARD_VERIFICATION_KIND_CVV2, "pan": PAN, "expiry": "2812"}
    cvk = value_of(core, "t-rotated-cvk", KeyUsage.CARD_VERIFICATION, 1).value
    check = pb.VerifyCardVerificationRequest(
        key=key("t-rotated-cvk", 1),
        card_verification_value=psec.cvv.generate_cvv(cvk, PAN, "2812", "000"),
        **cvv,
    )
    assert (await ask(bank, "VerifyCardVerification", check)).verified

    old_pin = pad.pin(RIGHT, PAN, name="t-rotated-zpk", version=1)
    block = (await ask(bank, "TranslatePin", translation(old_pin, SM4_0))).pin_block
    assert pad.opened(block, PAN) == RIGHT

    imk = value_of(core, "t-rotated-imk", KeyUsage.IMK_AC, 1)
    session_key = derive_pboc_session_key(derive_udk(imk, pan=PAN, psn=PSN), atc=ATC)
    old_card = arqc_check(core, "sm4", key=key("t-rotated-imk", 1), arqc=generate_arqc(session_key, DATA))
    assert (await ask(bank, "VerifyArqc", old_card)).verified
    # Cards remember the version they were made under: it still writes to them.
    old_script = script("sm4", PBOC, integrity_key=key("t-rotated-smi", 1))
    assert (await ask(bank, "GenerateIssuerScript", old_script)).command

    for rpc, request, path in (
        ("GenerateMac", mac_request("t-rotated-mac", 0, 1), "key"),
        (
            "GenerateCardVerification",
            pb.GenerateCardVerificationRequest(key=key("t-rotated-cvk", 1), **cvv),
            "key",
        ),
        (
            "TranslatePin",
            translation(pad.pin(RIGHT, PAN), SM4_0, target_key=key("t-rotated-zpk", 1)),
            "target_key",
        ),
    ):
        assert await refused(bank, rpc, request) == ("FAILED_PRECONDITION", "KEY_STATE", path)


async def test_key_without_an_active_version_or_not_yet_active_is_refused(bank: Caller) -> None:
    for name, version in ((RETIRED, 0), (UNBORN, 0), (UNBORN, 1)):
        for rpc, request in (
            ("GenerateMac", mac_request(name, 0, version)),
            ("VerifyMac", mac_check(name, bytes(8), version)),
        ):
            refusal = await refused(bank, rpc, request)
            assert refusal == ("FAILED_PRECONDITION", "KEY_STATE", "key"), (name, version)
    refusal = await refused(bank, "GenerateMac", mac_request(RETIRED, 0, 1))
    assert refusal == ("FAILED_PRECONDITION", "KEY_STATE", "key")
    assert not (await ask(bank, "VerifyMac", mac_check(RETIRED, bytes(8), 1))).verified


@pytest.mark.parametrize("suffix", CIPHERS)
async def test_key_serial_number_that_is_none_is_refused(bank: Caller, pad: PinPad, suffix: str) -> None:
    size = 10 if suffix == "tdes" else 12
    layout = {"tdes": ISO_0, "aes": ISO_4, "sm4": SM4_0}[suffix]
    name = f"bdk-{suffix}"
    pin = pad.terminal(suffix).pin(RIGHT, PAN, layout)
    for ksn in (bytes(22 - size), bytes(size), b"\xff" * size):
        expected = ("INVALID_ARGUMENT", "MALFORMED_FIELD")
        for rpc, request, path in (
            ("GenerateMac", mac_request(name, ksn=ksn), "ksn"),
            ("VerifyMac", mac_check(name, bytes(8), ksn=ksn), "ksn"),
            ("TranslatePin", translation(changed(pin, ksn=ksn), SM4_0), "source.ksn"),
        ):
            assert await refused(bank, rpc, request) == (*expected, path), ksn
    for rpc, request in (
        ("GenerateMac", mac_request("mac-sm4", ksn=bytes(size))),
        ("VerifyMac", mac_check("mac-sm4", bytes(8), ksn=bytes(size))),
    ):
        assert await refused(bank, rpc, request) == ("FAILED_PRECONDITION", "KEY_USAGE", "key")


async def test_calls_that_keep_nothing_leave_no_row(core: Core, bank: Caller, pad: PinPad) -> None:
    tables = ("operations", "access_blocks", "card_pins", "postings")

    async def rows() -> list[int]:
        return [await core.database.fetchval(f"SELECT count(*) FROM {table}") for table in tables]

    before = await rows()
    for name, (request, _, _) in requests(core).items():
        await ask(bank, name.split()[0], request)
    assert await rows() == before


def test_padding_by_hand_agrees_with_the_core_of_the_cipher(core: Core) -> None:
    """The one MAC that no other implementation has, algorithm 1 under SM4, from its blocks."""
    mac_key = value_of(core, "t-mac-1-sm4", KeyUsage.MAC_ALGORITHM_1)
    padded = MESSAGE + b"\x80" + bytes(-(len(MESSAGE) + 1) % 16)
    chain = bytes(16)
    for start in range(0, len(padded), 16):
        block = int.from_bytes(padded[start : start + 16]) ^ int.from_bytes(chain)
        chain = encrypt_ecb(mac_key, block.to_bytes(16))
    assert chain == MAC_KEYS["t-mac-1-sm4"].whole(mac_key, MESSAGE)
