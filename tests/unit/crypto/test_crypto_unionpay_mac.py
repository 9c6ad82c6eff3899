"""UnionPay's ECB MAC: known answers, what it detects, and what it is known not to detect."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import KeyUsageError, MacInvalidError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import unionpay_ecb_mac, verify_unionpay_ecb_mac

VALUE = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
KEYS = {cipher: Key(cipher, KeyUsage.MAC_UNIONPAY, VALUE) for cipher in (Cipher.TDES, Cipher.SM4)}
SIZES = {Cipher.TDES: 8, Cipher.SM4: 16}
CIPHERS = pytest.mark.parametrize("cipher", KEYS)
MESSAGE = bytes(range(40, 90))


@pytest.mark.parametrize(
    "name",
    [
        "unionpay ecb mac, public 3des example",
        "unionpay ecb mac, public des example",
        "unionpay ecb mac, 3des",
        "unionpay ecb mac, sm4",
    ],
)
def test_known_answers(vectors, name):
    v = vectors[name]
    key = Key(Cipher(v["cipher"]), KeyUsage.MAC_UNIONPAY, bytes.fromhex(v["key"]))
    message, mac = bytes.fromhex(v["message"]), v["mac"].encode()
    assert unionpay_ecb_mac(key, message) == mac
    verify_unionpay_ecb_mac(key, message, mac=mac)


@CIPHERS
def test_any_changed_bit_of_mac_or_message_is_refused(cipher):
    mac = unionpay_ecb_mac(KEYS[cipher], MESSAGE)
    for bit in range(8 * len(mac)):
        wrong = (int.from_bytes(mac) ^ 1 << bit).to_bytes(len(mac))
        with pytest.raises(MacInvalidError):
            verify_unionpay_ecb_mac(KEYS[cipher], MESSAGE, mac=wrong)
    for bit in range(8 * len(MESSAGE)):
        wrong = (int.from_bytes(MESSAGE) ^ 1 << bit).to_bytes(len(MESSAGE))
        with pytest.raises(MacInvalidError):
            verify_unionpay_ecb_mac(KEYS[cipher], wrong, mac=mac)


@CIPHERS
def test_a_mac_of_another_length_or_in_lower_case_is_refused(cipher):
    mac = unionpay_ecb_mac(KEYS[cipher], MESSAGE)
    for wrong in (b"", mac[:-1], mac + b"0", mac.lower()):
        with pytest.raises(MacInvalidError):
            verify_unionpay_ecb_mac(KEYS[cipher], MESSAGE, mac=wrong)


def test_field_64_holds_the_first_eight_characters_of_an_sm4_mac():
    key = KEYS[Cipher.SM4]
    whole, field_64 = unionpay_ecb_mac(key, MESSAGE), unionpay_ecb_mac(key, MESSAGE, size=8)
    assert (len(whole), field_64) == (16, whole[:8])
    verify_unionpay_ecb_mac(key, MESSAGE, mac=field_64, size=8)
    with pytest.raises(MacInvalidError):
        verify_unionpay_ecb_mac(key, MESSAGE, mac=whole, size=8)


@pytest.mark.parametrize(
    ("cipher", "size"), [(Cipher.TDES, 7), (Cipher.TDES, 9), (Cipher.SM4, 7), (Cipher.SM4, 17)]
)
def test_a_size_out_of_bounds_is_refused(cipher, size):
    with pytest.raises(ValueError, match="hex characters"):
        unionpay_ecb_mac(KEYS[cipher], MESSAGE, size=size)


@CIPHERS
@given(message=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_the_mac_is_upper_case_hex_of_one_length_whatever_the_message(cipher, message):
    mac = unionpay_ecb_mac(KEYS[cipher], message)
    assert len(mac) == SIZES[cipher]
    assert set(mac) <= set(b"0123456789ABCDEF")
    # Zeros behind a message, up to a whole block, are what the padding adds anyway.
    assert unionpay_ecb_mac(KEYS[cipher], message + bytes(-len(message) % SIZES[cipher])) == mac


@CIPHERS
def test_known_weakness_blocks_in_another_order_keep_the_mac(cipher):
    size = SIZES[cipher]
    one, two = bytes(range(size)), bytes(range(100, 100 + size))
    assert unionpay_ecb_mac(KEYS[cipher], one + two) == unionpay_ecb_mac(KEYS[cipher], two + one)


@pytest.mark.parametrize(
    "key",
    [
        Key(Cipher.TDES, KeyUsage.MAC_ALGORITHM_3, VALUE),
        Key(Cipher.SM4, KeyUsage.DATA_ENCRYPTION, VALUE),
        Key(Cipher.AES, KeyUsage.MAC_UNIONPAY, VALUE),
        Key(Cipher.HMAC_SM3, KeyUsage.MESSAGE_MAC, VALUE * 2),
    ],
    ids=["other MAC", "data key", "AES", "HMAC"],
)
def test_a_key_for_something_else_is_refused(key):
    with pytest.raises(KeyUsageError):
        unionpay_ecb_mac(key, MESSAGE)


def test_a_derived_message_key_is_taken():
    key = Key(Cipher.TDES, KeyUsage.MESSAGE_MAC, VALUE)
    assert unionpay_ecb_mac(key, MESSAGE) == unionpay_ecb_mac(KEYS[Cipher.TDES], MESSAGE)
