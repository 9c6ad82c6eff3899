"""Published and twice-computed known answers."""

import pytest
from cryptography.hazmat.primitives import hashes

from crypto.blocks import decrypt_cbc, decrypt_ecb, encrypt_cbc, encrypt_ecb
from crypto.cryptogram import (
    TransactionData,
    generate_arpc_method_1,
    generate_arqc,
    verify_arqc,
)
from crypto.diversification import (
    derive_emv_common_session_key,
    derive_pboc_session_key,
    derive_udk,
    derive_udk_option_a,
    derive_udk_option_b,
)
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import Padding, cmac_tag, mac_algorithm_3, verify_mac_algorithm_3
from crypto.sealing import _seal_with_nonce, open_sealed

BOTH = pytest.mark.parametrize(("cipher", "field"), [(Cipher.TDES, "tdes"), (Cipher.SM4, "sm4")])


def test_sm4_block(vectors):
    v = vectors["sm4 block"]
    key = Key(Cipher.SM4, KeyUsage.MESSAGE_MAC, bytes.fromhex(v["key"]))
    plaintext, ciphertext = bytes.fromhex(v["plaintext"]), bytes.fromhex(v["ciphertext"])
    assert encrypt_ecb(key, plaintext) == ciphertext
    assert decrypt_ecb(key, ciphertext) == plaintext


def test_sm3(vectors):
    digest = hashes.Hash(hashes.SM3())
    digest.update(vectors["sm3 abc"]["message_ascii"].encode())
    assert digest.finalize().hex().upper() == vectors["sm3 abc"]["digest"]


def test_sm4_gcm(vectors):
    v = {name: value for name, value in vectors["sm4-gcm"].items() if name not in ("name", "source")}
    v = {name: bytes.fromhex(value) for name, value in v.items()}
    key = Key(Cipher.SM4, KeyUsage.SEALING, v["key"])
    sealed = _seal_with_nonce(key, v["plaintext"], aad=v["aad"], nonce=v["iv"])
    assert sealed == v["iv"] + v["ciphertext"] + v["tag"]
    assert open_sealed(key, sealed, aad=v["aad"]) == v["plaintext"]


@pytest.mark.parametrize("name", ["aes-cmac 0", "aes-cmac 16"])
def test_aes_cmac(vectors, name):
    v = vectors[name]
    key = Key(Cipher.AES, KeyUsage.MESSAGE_MAC, bytes.fromhex(v["key"]))
    assert cmac_tag(key, bytes.fromhex(v["message"])).hex().upper() == v["mac"]


@pytest.mark.parametrize("padding", list(Padding))
def test_retail_mac_with_each_padding(vectors, padding):
    v = vectors["retail mac"]
    key = Key(Cipher.TDES, KeyUsage.MESSAGE_MAC, bytes.fromhex(v["key"]))
    mac = mac_algorithm_3(key, v["message_ascii"].encode(), padding=padding)
    assert mac.hex().upper() == v[f"padding_{padding.value}"]
    verify_mac_algorithm_3(key, v["message_ascii"].encode(), mac=mac, padding=padding)


@pytest.mark.parametrize(
    ("cipher", "field"), [(Cipher.TDES, "tdes"), (Cipher.SM4, "sm4"), (Cipher.AES, "aes_cmac")]
)
def test_key_check_value(vectors, cipher, field):
    key = Key(cipher, KeyUsage.IMK_AC, bytes.fromhex(vectors["kcv"]["key"]))
    assert key.kcv() == vectors["kcv"][field]


@pytest.mark.parametrize(
    ("name", "derive"), [("emv option A", derive_udk_option_a), ("emv option B", derive_udk_option_b)]
)
def test_emv_card_keys(vectors, name, derive):
    v = vectors[name]
    imk = Key(Cipher.TDES, KeyUsage.IMK_AC, bytes.fromhex(v["key"]))
    assert derive(imk, pan=v["pan"], psn=v["psn"]).value.hex().upper() == v["udk"]


def test_emv_common_session_key(vectors):
    v = vectors["emv common session key"]
    udk = Key(Cipher.TDES, KeyUsage.UDK_AC, bytes.fromhex(v["key"]))
    session_key = derive_emv_common_session_key(udk, diversifier=bytes.fromhex(v["diversifier"]))
    assert session_key.value.hex().upper() == v["session_key"]


@BOTH
def test_pboc_chain_from_master_key_to_arpc(vectors, cipher, field):
    v = vectors["pboc udk"]
    imk = Key(cipher, KeyUsage.IMK_AC, bytes.fromhex(v["key"]))
    udk = derive_udk(imk, pan=v["pan"], psn=v["psn"])
    assert udk.value.hex().upper() == v[field]
    session_key = derive_pboc_session_key(udk, atc=int(vectors["pboc session key"]["atc"], 16))
    assert session_key.value.hex().upper() == vectors["pboc session key"][field]
    data = bytes.fromhex(vectors["pboc arqc"]["data"])
    arqc = generate_arqc(session_key, data)
    assert arqc.hex().upper() == vectors["pboc arqc"][field]
    verify_arqc(session_key, data, arqc=arqc)
    v = vectors["pboc arpc method 1"]
    arpc = generate_arpc_method_1(session_key, arqc=arqc, arc=bytes.fromhex(v["arc"]))
    assert arpc.hex().upper() == v[field]


def test_transaction_data_encode_as_the_known_bytes(vectors):
    data = TransactionData(
        amount_authorized_minor=10000,
        amount_other_minor=0,
        terminal_country_code="156",
        tvr=bytes(5),
        transaction_currency_code="156",
        transaction_date="250601",
        transaction_type="00",
        unpredictable_number=bytes.fromhex("12345678"),
        aip=bytes.fromhex("7C00"),
        atc=0x1C,
        cvr=bytes.fromhex("03A0B800"),
    )
    assert data.encode().hex().upper() == vectors["pboc arqc"]["data"]


@pytest.mark.parametrize(("cipher", "size"), [(Cipher.SM4, 16), (Cipher.AES, 16), (Cipher.TDES, 8)])
def test_cbc_of_one_block_from_zero_is_ecb_and_decrypts(cipher, size):
    key = Key(cipher, KeyUsage.MESSAGE_MAC, bytes(range(16)))
    block, two = bytes(range(size)), bytes(range(2 * size))
    assert encrypt_cbc(key, iv=bytes(size), blocks=block) == encrypt_ecb(key, block)
    assert decrypt_cbc(key, iv=block, blocks=encrypt_cbc(key, iv=block, blocks=two)) == two
