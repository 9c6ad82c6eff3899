"""Keys show nothing and serve one purpose."""

import copy
import dataclasses
import pickle

import pytest

from crypto.cryptogram import generate_arqc
from crypto.diversification import derive_level_key, derive_pboc_session_key, derive_ss_card_key, derive_udk
from crypto.errors import KeyUsageError
from crypto.internal_authentication import generate_response
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding, hmac_sm3, mac_algorithm_3

VALUE = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")


def key(usage: KeyUsage = KeyUsage.IMK_AC, cipher: Cipher = Cipher.SM4) -> Key:
    return Key(cipher, usage, VALUE)


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format, lambda k: f"{[k]}"])
def test_a_shown_key_does_not_show_its_value(show):
    text = show(key())
    assert "****" in text
    assert VALUE.hex() not in text.lower()
    assert repr(VALUE) not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_key_refuses_to_be_pickled(protocol):
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        pickle.dumps(key(), protocol)


def test_a_key_refuses_to_be_copied():
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            duplicate(key())


def test_a_key_is_frozen_and_not_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        key().value = bytes(16)  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(key())


def test_keys_are_equal_by_cipher_usage_and_value():
    assert key() == key()
    assert key() != key(usage=KeyUsage.UDK_AC)
    assert key() != key(cipher=Cipher.AES)
    assert key() != Key(Cipher.SM4, KeyUsage.IMK_AC, bytes(16))
    assert key() != VALUE


@pytest.mark.parametrize(
    ("cipher", "size"),
    [(Cipher.SM4, 15), (Cipher.SM4, 32), (Cipher.TDES, 24), (Cipher.TDES, 8), (Cipher.AES, 17)],
)
def test_a_key_of_a_wrong_length_is_refused(cipher, size):
    with pytest.raises(ValueError, match="wrong length"):
        Key(cipher, KeyUsage.IMK_AC, bytes(size))


def test_hash_keys_and_block_keys_are_not_interchangeable():
    with pytest.raises(KeyUsageError):
        Key(Cipher.HMAC_SM3, KeyUsage.IMK_AC, bytes(32))
    with pytest.raises(KeyUsageError):
        Key(Cipher.SM4, KeyUsage.CARD_CODE, bytes(16))


def test_kcv_of_an_hmac_key_depends_on_the_key():
    one = Key(Cipher.HMAC_SM3, KeyUsage.CARD_CODE, bytes(32))
    two = Key(Cipher.HMAC_SM3, KeyUsage.CARD_CODE, bytes(31) + b"\x01")
    assert len(one.kcv()) == 6
    assert one.kcv() != two.kcv()


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: derive_udk(key(KeyUsage.UDK_AC), pan="6217000010012345678", psn="00"),
        lambda: derive_pboc_session_key(key(KeyUsage.IMK_AC), atc=1),
        lambda: generate_arqc(key(KeyUsage.UDK_AC), b""),
        lambda: derive_level_key(key(KeyUsage.SS_AUTHENTICATION_CITY), region="360100"),
        lambda: derive_ss_card_key(key(KeyUsage.SS_AUTHENTICATION_PROVINCE), atr_historical_bytes=bytes(13)),
        lambda: generate_response(
            key(KeyUsage.SS_AUTHENTICATION_CITY), process_factor=bytes(8), original_data=bytes(8)
        ),
        lambda: mac_algorithm_3(key(KeyUsage.MESSAGE_MAC), b"", padding=Padding.ZEROS),
        lambda: hmac_sm3(key(KeyUsage.MESSAGE_MAC), b""),
    ],
)
def test_a_key_of_another_usage_is_refused(misuse):
    with pytest.raises(KeyUsageError):
        misuse()
