"""Message authentication codes: tampering is refused, lengths are agreed, padding is exact."""

import pytest

from crypto.errors import KeyUsageError, MacInvalidError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import (
    CbcMacContext,
    Padding,
    RetailMacContext,
    cmac_tag,
    hmac_sm3,
    mac_algorithm_1,
    mac_algorithm_3,
    pad,
    verify_cmac,
    verify_hmac_sm3,
    verify_mac_algorithm_1,
    verify_mac_algorithm_3,
)

VALUE = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
SM4 = Key(Cipher.SM4, KeyUsage.MESSAGE_MAC, VALUE)
TDES = Key(Cipher.TDES, KeyUsage.MESSAGE_MAC, VALUE)
HASH = Key(Cipher.HMAC_SM3, KeyUsage.MESSAGE_MAC, VALUE * 2)
PADDING = Padding.ONE_THEN_ZEROS

ALGORITHMS = {
    "algorithm 1": (
        lambda message: mac_algorithm_1(SM4, message, padding=PADDING),
        lambda message, mac: verify_mac_algorithm_1(SM4, message, mac=mac, padding=PADDING),
    ),
    "algorithm 3": (
        lambda message: mac_algorithm_3(TDES, message, padding=PADDING),
        lambda message, mac: verify_mac_algorithm_3(TDES, message, mac=mac, padding=PADDING),
    ),
    "cmac": (lambda m: cmac_tag(SM4, m), lambda m, mac: verify_cmac(SM4, m, mac=mac)),
    "hmac": (lambda m: hmac_sm3(HASH, m), lambda m, mac: verify_hmac_sm3(HASH, m, mac=mac)),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_any_changed_bit_of_mac_or_message_is_refused(name):
    make, verify = ALGORITHMS[name]
    message = b"one message of thirty-two bytes."
    mac = make(message)
    verify(message, mac)
    for bit in range(8 * len(mac)):
        wrong = (int.from_bytes(mac) ^ 1 << bit).to_bytes(len(mac))
        with pytest.raises(MacInvalidError):
            verify(message, wrong)
    for bit in range(8 * len(message)):
        wrong = (int.from_bytes(message) ^ 1 << bit).to_bytes(len(message))
        with pytest.raises(MacInvalidError):
            verify(wrong, mac)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_shortened_mac_is_refused_where_the_whole_was_agreed(name):
    make, verify = ALGORITHMS[name]
    mac = make(b"message")
    for kept in range(len(mac)):
        with pytest.raises(MacInvalidError):
            verify(b"message", mac[:kept])


# By their standards alone; ``cmac_block`` and ``hmac_sm3_context`` are for those who answer for the key.
USAGES = {
    "algorithm 1": {"MAC_ALGORITHM_1", "MESSAGE_MAC", "SESSION_AC", "SESSION_SMI"},
    "algorithm 3": {"MAC_ALGORITHM_3", "MESSAGE_MAC", "SESSION_AC", "SESSION_SMI"},
    "cmac": {"MAC_CMAC", "MESSAGE_MAC", "IDENTIFICATION_CODE"},
    "hmac": {"MAC_HMAC_SM3", "MESSAGE_MAC"},
}
BY_KEY = {
    "algorithm 1": (
        lambda key: mac_algorithm_1(key, b"", padding=PADDING),
        lambda key: verify_mac_algorithm_1(key, b"", mac=bytes(16), padding=PADDING),
    ),
    "algorithm 3": (
        lambda key: mac_algorithm_3(key, b"", padding=PADDING),
        lambda key: verify_mac_algorithm_3(key, b"", mac=bytes(8), padding=PADDING),
    ),
    "cmac": (lambda key: cmac_tag(key, b""), lambda key: verify_cmac(key, b"", mac=bytes(8))),
    "hmac": (lambda key: hmac_sm3(key, b""), lambda key: verify_hmac_sm3(key, b"", mac=bytes(32))),
}


@pytest.mark.parametrize("name", BY_KEY)
@pytest.mark.parametrize("usage", KeyUsage)
def test_each_code_takes_keys_that_are_for_it(name, usage):
    make, verify = BY_KEY[name]
    try:
        key = Key(Cipher.TDES, usage, VALUE) if name != "hmac" else Key(Cipher.HMAC_SM3, usage, VALUE * 2)
    except KeyUsageError:
        return
    if usage.value in USAGES[name]:
        make(key)
        with pytest.raises(MacInvalidError):
            verify(key)
        return
    for misuse in (make, verify):
        with pytest.raises(KeyUsageError):
            misuse(key)


@pytest.mark.parametrize("size", [0, 3, 17])
def test_a_mac_size_out_of_bounds_is_refused(size):
    with pytest.raises(ValueError, match="bytes"):
        cmac_tag(SM4, b"", size=size)


def test_paddings_are_exact():
    assert pad(b"", size=8, padding=Padding.ZEROS) == bytes(8)
    assert pad(b"12345678", size=8, padding=Padding.ZEROS) == b"12345678"
    assert pad(b"12345678", size=8, padding=Padding.ONE_THEN_ZEROS) == b"12345678\x80" + bytes(7)
    assert pad(b"1234567", size=8, padding=Padding.ONE_THEN_ZEROS) == b"1234567\x80"
    assert pad(b"123", size=8, padding=Padding.LENGTH_THEN_ZEROS) == bytes(7) + b"\x18123" + bytes(5)


@pytest.mark.parametrize("cipher", [Cipher.SM4, Cipher.AES, Cipher.TDES])
def test_a_reused_context_answers_as_a_new_one(cipher):
    size = 8 if cipher is Cipher.TDES else 16

    def new() -> CbcMacContext | RetailMacContext:
        return RetailMacContext(VALUE) if cipher is Cipher.TDES else CbcMacContext(cipher, VALUE)

    reused = new()
    for blocks in range(1, 6):
        message = bytes(range(blocks * size))
        assert reused.mac(message) == new().mac(message)
        block = int.from_bytes(message[:size])
        assert reused.encrypt(block) == new().encrypt(block) == new().mac(message[:size])
