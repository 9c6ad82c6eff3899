"""MACs through gRPC: of every algorithm, padding and terminal, against independent computations."""

import psec
import pytest
from core_under_test import Caller, Core
from cryptography_requests import (
    CIPHERS,
    MAC_KEYS,
    MARKS,
    MESSAGE,
    ask,
    mac_check,
    mac_request,
    refused,
    spoilt,
    value_of,
)
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import PinPad

from crypto import macs
from crypto.blocks import encrypt_ecb
from crypto.dukpt_tdes import DukptKeyUse
from crypto.keys import KeyUsage

pytestmark = MARKS


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


def test_padding_by_hand_agrees_with_the_core_of_the_cipher(core: Core) -> None:
    """The one MAC that no other implementation has, algorithm 1 under SM4, from its blocks."""
    mac_key = value_of(core, "t-mac-1-sm4", KeyUsage.MAC_ALGORITHM_1)
    padded = MESSAGE + b"\x80" + bytes(-(len(MESSAGE) + 1) % 16)
    chain = bytes(16)
    for start in range(0, len(padded), 16):
        block = int.from_bytes(padded[start : start + 16]) ^ int.from_bytes(chain)
        chain = encrypt_ecb(mac_key, block.to_bytes(16))
    assert chain == MAC_KEYS["t-mac-1-sm4"].whole(mac_key, MESSAGE)
