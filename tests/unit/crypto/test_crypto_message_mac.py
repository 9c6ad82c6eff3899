"""A MAC key decides its algorithm: no caller chooses it, and no key serves two."""

import pytest

from crypto.errors import KeyUsageError, MacInvalidError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding, cmac_tag, hmac_sm3, mac_algorithm_1, mac_algorithm_3, unionpay_ecb_mac
from crypto.message_mac import MAC_USAGES, PaddingError, generate_message_mac, verify_message_mac

VALUE = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
MESSAGE = b"one message of thirty-one bytes"
METHOD_2 = Padding.ONE_THEN_ZEROS


def key(cipher: Cipher, usage: KeyUsage) -> Key:
    return Key(cipher, usage, VALUE * (2 if cipher is Cipher.HMAC_SM3 else 1))


# Key, and its code in whole by the function of the standard.
KEYS = {
    "algorithm 1, SM4": (
        key(Cipher.SM4, KeyUsage.MAC_ALGORITHM_1),
        lambda k: mac_algorithm_1(k, MESSAGE, padding=METHOD_2),
    ),
    "algorithm 1, AES": (
        key(Cipher.AES, KeyUsage.MAC_ALGORITHM_1),
        lambda k: mac_algorithm_1(k, MESSAGE, padding=METHOD_2),
    ),
    "algorithm 3, 3DES": (
        key(Cipher.TDES, KeyUsage.MAC_ALGORITHM_3),
        lambda k: mac_algorithm_3(k, MESSAGE, padding=METHOD_2),
    ),
    "CMAC, SM4": (key(Cipher.SM4, KeyUsage.MAC_CMAC), lambda k: cmac_tag(k, MESSAGE)),
    "CMAC, AES": (key(Cipher.AES, KeyUsage.MAC_CMAC), lambda k: cmac_tag(k, MESSAGE)),
    "CMAC, 3DES": (key(Cipher.TDES, KeyUsage.MAC_CMAC), lambda k: cmac_tag(k, MESSAGE)),
    "UnionPay, SM4": (key(Cipher.SM4, KeyUsage.MAC_UNIONPAY), lambda k: unionpay_ecb_mac(k, MESSAGE)),
    "UnionPay, 3DES": (key(Cipher.TDES, KeyUsage.MAC_UNIONPAY), lambda k: unionpay_ecb_mac(k, MESSAGE)),
    "HMAC": (key(Cipher.HMAC_SM3, KeyUsage.MAC_HMAC_SM3), lambda k: hmac_sm3(k, MESSAGE)),
    "DUKPT, 3DES": (
        key(Cipher.TDES, KeyUsage.MESSAGE_MAC),
        lambda k: mac_algorithm_3(k, MESSAGE, padding=METHOD_2),
    ),
    "DUKPT, AES": (key(Cipher.AES, KeyUsage.MESSAGE_MAC), lambda k: cmac_tag(k, MESSAGE)),
    "DUKPT, SM4": (key(Cipher.SM4, KeyUsage.MESSAGE_MAC), lambda k: cmac_tag(k, MESSAGE)),
}
PADDED = {name for name in KEYS if name.startswith("algorithm") or name == "DUKPT, 3DES"}


def test_every_usage_of_macs_is_tried():
    assert {k.usage for k, _ in KEYS.values()} - {KeyUsage.MESSAGE_MAC} == set(MAC_USAGES)


@pytest.mark.parametrize("name", KEYS)
def test_the_usage_decides_the_algorithm(name):
    mac_key, whole_of = KEYS[name]
    whole = whole_of(mac_key)
    for size in (8, len(whole)):
        mac = generate_message_mac(mac_key, MESSAGE, padding=None, size=size)
        assert mac == whole[:size]
        verify_message_mac(mac_key, MESSAGE, mac=mac, padding=None, size=size)


@pytest.mark.parametrize("name", KEYS)
def test_a_code_that_is_not_of_the_message_or_not_in_whole_is_refused(name):
    mac_key, whole_of = KEYS[name]
    mac = whole_of(mac_key)[:8]
    trials = [(MESSAGE + b"\x00x", mac), (MESSAGE, mac[:-1]), (MESSAGE, mac + b"0"), (MESSAGE, b"")]
    trials += [(MESSAGE, mac[:n] + bytes([mac[n] ^ 1]) + mac[n + 1 :]) for n in range(8)]
    for message, wrong in trials:
        with pytest.raises(MacInvalidError):
            verify_message_mac(mac_key, message, mac=wrong, padding=None, size=8)


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("padding", list(Padding), ids=lambda padding: padding.name)
def test_padding_is_a_choice_for_algorithms_1_and_3_only(name, padding):
    mac_key, _ = KEYS[name]
    if name not in PADDED:
        for function, arguments in ((generate_message_mac, {}), (verify_message_mac, {"mac": bytes(8)})):
            with pytest.raises(PaddingError):
                function(mac_key, MESSAGE, padding=padding, size=8, **arguments)
        return
    algorithm = mac_algorithm_1 if "1" in name else mac_algorithm_3
    expected = algorithm(mac_key, MESSAGE, padding=padding, size=8)
    assert generate_message_mac(mac_key, MESSAGE, padding=padding, size=8) == expected


@pytest.mark.parametrize("name", KEYS)
def test_a_size_out_of_bounds_is_refused(name):
    mac_key, whole_of = KEYS[name]
    for size in (0, 3, len(whole_of(mac_key)) + 1):
        with pytest.raises(ValueError, match="MAC"):
            generate_message_mac(mac_key, MESSAGE, padding=None, size=size)


@pytest.mark.parametrize(
    "usage", [usage for usage in KeyUsage if usage not in {*MAC_USAGES, KeyUsage.MESSAGE_MAC}]
)
def test_a_key_for_something_else_authenticates_nothing(usage):
    cipher = Cipher.SM4
    try:
        other = key(cipher, usage)
    except KeyUsageError:
        other = key(Cipher.HMAC_SM3, usage)
    with pytest.raises(KeyUsageError):
        generate_message_mac(other, MESSAGE, padding=None, size=8)
    with pytest.raises(KeyUsageError):
        verify_message_mac(other, MESSAGE, mac=bytes(8), padding=None, size=8)


@pytest.mark.parametrize(
    ("cipher", "usage"),
    [
        (Cipher.SM4, KeyUsage.MAC_ALGORITHM_3),
        (Cipher.AES, KeyUsage.MAC_ALGORITHM_3),
        (Cipher.AES, KeyUsage.MAC_UNIONPAY),
    ],
)
def test_a_cipher_that_the_algorithm_does_not_know_is_refused(cipher, usage):
    with pytest.raises(KeyUsageError):
        generate_message_mac(key(cipher, usage), MESSAGE, padding=None, size=8)
