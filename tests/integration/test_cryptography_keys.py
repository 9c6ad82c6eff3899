"""Keys that cryptography is asked for through gRPC: which each RPC refuses, and what those do that only verify."""

from typing import Any

import psec
import pytest
from core_under_test import Caller, Core, changed, refusal_of
from cryptography_requests import (
    ATC,
    CIPHERS,
    DATA,
    MARKS,
    MESSAGE,
    PAN,
    PBOC,
    PSN,
    RETIRED,
    UNBORN,
    arqc_check,
    ask,
    mac_check,
    mac_request,
    pin_change,
    refused,
    script,
    translation,
    value_of,
)
from google.protobuf.message import Message
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import ISO_0, ISO_4, OTHER, RIGHT, SM4_0, PinPad, key

from crypto import macs
from crypto.cryptogram import generate_arqc
from crypto.diversification import derive_pboc_session_key, derive_udk
from crypto.keys import KeyUsage

pytestmark = MARKS


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
