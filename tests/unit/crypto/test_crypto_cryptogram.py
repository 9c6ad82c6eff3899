"""Cryptograms and derivations: shapes are checked, tampering is refused."""

import dataclasses

import pytest

from crypto.cryptogram import (
    TransactionData,
    generate_arpc_method_1,
    generate_arpc_method_2,
    generate_arqc,
    verify_arqc,
)
from crypto.diversification import (
    SessionMethod,
    city_region,
    derive_emv_common_session_key,
    derive_level_key,
    derive_pboc_session_key,
    derive_ss_card_key,
    derive_udk,
    derive_udk_option_a,
    derive_udk_option_b,
    pboc_session_factor,
    region_factor,
    session_factor,
    ss_card_factor,
    udk_factor_a,
)
from crypto.errors import CryptogramInvalidError, InternalAuthenticationInvalidError, KeyUsageError
from crypto.internal_authentication import generate_response, verify_response
from crypto.keys import Cipher, Key, KeyUsage

VALUE = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
CIPHERS = pytest.mark.parametrize("cipher", [Cipher.SM4, Cipher.TDES, Cipher.AES])
DATA = TransactionData(
    amount_authorized_minor=10000,
    amount_other_minor=0,
    terminal_country_code="156",
    tvr=bytes(5),
    transaction_currency_code="156",
    transaction_date="250601",
    transaction_type="00",
    unpredictable_number=bytes(4),
    aip=bytes(2),
    atc=1,
    cvr=bytes(4),
)


@pytest.mark.parametrize(
    "change",
    [
        {"amount_authorized_minor": -1},
        {"amount_authorized_minor": 10**12},
        {"amount_other_minor": -1},
        {"amount_other_minor": 10**12},
        {"atc": 65536},
        {"atc": -1},
        {"terminal_country_code": "0156"},
        {"terminal_country_code": "1a6"},
        {"transaction_currency_code": "CNY"},
        {"transaction_date": "20250601"},
        {"transaction_date": "25060１"},
        {"transaction_type": "0"},
        {"tvr": bytes(4)},
        {"unpredictable_number": bytes(5)},
        {"aip": b""},
        {"cvr": bytes(3)},
    ],
)
def test_a_data_element_out_of_its_shape_is_named_and_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(DATA, **change).encode()


def test_amounts_at_their_bounds_are_encoded():
    encoded = dataclasses.replace(DATA, amount_authorized_minor=10**12 - 1, atc=65535).encode()
    assert len(encoded) == 37
    assert encoded.startswith(b"\x99" * 6)


@CIPHERS
def test_any_changed_bit_of_arqc_or_data_is_refused(cipher):
    key = Key(cipher, KeyUsage.SESSION_AC, VALUE)
    data = DATA.encode()
    arqc = generate_arqc(key, data)
    verify_arqc(key, data, arqc=arqc)
    for bit in range(64):
        with pytest.raises(CryptogramInvalidError):
            verify_arqc(key, data, arqc=(int.from_bytes(arqc) ^ 1 << bit).to_bytes(8))
    for bit in range(8 * len(data)):
        with pytest.raises(CryptogramInvalidError):
            verify_arqc(key, (int.from_bytes(data) ^ 1 << bit).to_bytes(37), arqc=arqc)
    for length in (0, 4, 7, 9):
        with pytest.raises(CryptogramInvalidError):
            verify_arqc(key, data, arqc=(arqc + b"\0")[:length])


@CIPHERS
def test_arpc_depends_on_the_answer_and_the_arqc(cipher):
    key = Key(cipher, KeyUsage.SESSION_AC, VALUE)
    arpcs = {
        generate_arpc_method_1(key, arqc=arqc, arc=arc)
        for arqc in (bytes(8), bytes(7) + b"\x01")
        for arc in (b"00", b"05", b"51")
    }
    assert len(arpcs) == 6
    assert {len(arpc) for arpc in arpcs} == {8}
    assert len(generate_arpc_method_2(key, arqc=bytes(8), csu=bytes(4), proprietary=bytes(8))) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda key: generate_arpc_method_1(key, arqc=bytes(7), arc=b"00"),
        lambda key: generate_arpc_method_1(key, arqc=bytes(8), arc=b"0"),
        lambda key: generate_arpc_method_2(key, arqc=bytes(8), csu=bytes(3)),
        lambda key: generate_arpc_method_2(key, arqc=bytes(8), csu=bytes(4), proprietary=bytes(9)),
    ],
)
def test_arpc_inputs_of_wrong_length_are_refused(wrong):
    with pytest.raises(ValueError, match="bytes"):
        wrong(Key(Cipher.SM4, KeyUsage.SESSION_AC, VALUE))


@pytest.mark.parametrize(
    ("pan", "psn"),
    [
        ("62170000100", "00"),
        ("62170000100123456789", "00"),
        ("621700001001234567A", "00"),
        ("6217000010012345678", "0"),
        ("6217000010012345678", "a0"),
        ("６217000010012345678", "00"),
        ("6217 00001001234567", "00"),
    ],
)
def test_a_malformed_card_number_is_refused_without_being_quoted(pan, psn):
    for derive in (derive_udk_option_a, derive_udk_option_b, derive_udk):
        with pytest.raises(ValueError, match="card number") as refusal:
            derive(Key(Cipher.SM4, KeyUsage.IMK_AC, VALUE), pan=pan, psn=psn)
        assert pan not in str(refusal.value)


def test_a_short_card_number_is_padded_with_zeros_on_the_left():
    assert udk_factor_a("621700001001", "01")[:8].hex() == "0062170000100101"


def test_the_session_factor_complements_only_the_counter():
    assert pboc_session_factor(0x1C).hex() == "000000000000001c000000000000ffe3"
    assert pboc_session_factor(65535).hex() == "000000000000ffff0000000000000000"
    for atc in (-1, 65536):
        with pytest.raises(OverflowError):
            pboc_session_factor(atc)
        with pytest.raises(OverflowError):
            derive_pboc_session_key(Key(Cipher.SM4, KeyUsage.UDK_AC, VALUE), atc=atc)


def test_the_emv_common_session_key_exists_for_3des_and_aes_only():
    assert session_factor(Cipher.TDES, SessionMethod.EMV_COMMON, 0x1C).hex() == (
        "001cf00000000000001c0f0000000000"
    )
    assert session_factor(Cipher.AES, SessionMethod.EMV_COMMON, 0x1C).hex() == "001c" + "00" * 14
    with pytest.raises(KeyUsageError):
        derive_emv_common_session_key(Key(Cipher.SM4, KeyUsage.UDK_AC, VALUE), diversifier=bytes(8))
    with pytest.raises(ValueError, match="8 bytes"):
        derive_emv_common_session_key(Key(Cipher.AES, KeyUsage.UDK_AC, VALUE), diversifier=bytes(7))


def test_level_and_card_factors():
    assert region_factor("360100").hex() == "3601000000000000"
    assert city_region("360102") == "360100"
    assert ss_card_factor(bytes.fromhex("00814E43238697159900BF7C7A")).hex() == "159900bf7c7a0000"
    for malformed in ("36010", "3601000", "36010x", "３60100"):
        with pytest.raises(ValueError, match="six digits"):
            region_factor(malformed)
        with pytest.raises(ValueError, match="six digits"):
            city_region(malformed)
    for size in (5, 16):
        with pytest.raises(ValueError, match="6 to 15 bytes"):
            ss_card_factor(bytes(size))


@CIPHERS
def test_internal_authentication_from_nation_to_card(cipher):
    national = Key(cipher, KeyUsage.SS_AUTHENTICATION_NATIONAL, VALUE)
    province = derive_level_key(national, region="360000")
    city = derive_level_key(province, region="360100")
    card = derive_ss_card_key(city, atr_historical_bytes=bytes.fromhex("00814E43238697159900BF7C7A"))
    challenge = {"process_factor": bytes(range(8)), "original_data": bytes(range(8, 16))}
    response = generate_response(card, **challenge)
    assert len(response) == 8
    verify_response(card, **challenge, response=response)
    for bit in range(64):
        wrong = (int.from_bytes(response) ^ 1 << bit).to_bytes(8)
        with pytest.raises(InternalAuthenticationInvalidError):
            verify_response(card, **challenge, response=wrong)
    for part in challenge:
        with pytest.raises(InternalAuthenticationInvalidError):
            verify_response(card, **{**challenge, part: bytes(8)}, response=response)
        with pytest.raises(ValueError, match="8 bytes"):
            verify_response(card, **{**challenge, part: bytes(7)}, response=response)
    with pytest.raises(InternalAuthenticationInvalidError):
        verify_response(card, **challenge, response=response[:7])
