"""Cryptograms, PIN translations and card verification values through gRPC, against independent computations."""

import psec
import pyemv
import pytest
from core_under_test import Caller, Core, changed
from cryptography_requests import (
    ATC,
    DATA,
    EMV,
    MARKS,
    METHODS,
    PAN,
    arqc_check,
    ask,
    refused,
    session_of,
    spoilt,
    translation,
    value_of,
)
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import (
    FORMATS,
    ISO_0,
    ISO_1,
    ISO_3,
    ISO_4,
    RIGHT,
    SM4_0,
    SUFFIXES,
    THIRD,
    PinPad,
    format_name,
    key,
    zpk,
)

from crypto.cryptogram import generate_arpc_method_1, generate_arpc_method_2
from crypto.keys import KeyUsage

pytestmark = MARKS


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


ALLOWED = {
    ISO_1: {*FORMATS},
    ISO_0: {ISO_0, ISO_3, ISO_4, SM4_0},
    ISO_3: {ISO_3, ISO_4, SM4_0},
    ISO_4: {ISO_4, SM4_0},
    SM4_0: {ISO_4, SM4_0},
}


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
