"""Card verification values: known answer, three values that never stand for one another, 3DES only."""

import pytest

from crypto.card_verification import (
    CardVerificationKind,
    card_verification_data,
    card_verification_value,
    generate_cvv,
    verify_cvv,
)
from crypto.errors import CardVerificationInvalidError, KeyUsageError
from crypto.keys import Cipher, Key, KeyUsage

CVV, ICVV, CVV2 = CardVerificationKind.CVV, CardVerificationKind.ICVV, CardVerificationKind.CVV2
CVK = Key(Cipher.TDES, KeyUsage.CARD_VERIFICATION, bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"))
CARD = {"pan": "6217000010012345678", "expiry": "3112"}
CODES = {CVV: "220", ICVV: "", CVV2: ""}
KINDS = pytest.mark.parametrize("kind", list(CardVerificationKind), ids=lambda kind: kind.value)


def test_cvv_known_answer(vectors):
    v = vectors["cvv"]
    cvk = Key(Cipher.TDES, KeyUsage.CARD_VERIFICATION, bytes.fromhex(v["cvk"]))
    card = {"pan": v["pan"], "expiry": v["expiry"], "service_code": v["service_code"]}
    assert generate_cvv(cvk, kind=CVV, **card) == v["cvv"]
    verify_cvv(cvk, kind=CVV, value=v["cvv"], **card)


@KINDS
def test_a_value_fits_its_card_only(kind):
    card = {**CARD, "service_code": CODES[kind]}
    value = generate_cvv(CVK, kind=kind, **card)
    verify_cvv(CVK, kind=kind, value=value, **card)
    for changed in ({"pan": "6217000010012345679"}, {"expiry": "3111"}):
        with pytest.raises(CardVerificationInvalidError):
            verify_cvv(CVK, kind=kind, value=value, **{**card, **changed})


@KINDS
def test_every_other_value_and_every_other_length_is_refused(kind):
    card = {**CARD, "service_code": CODES[kind]}
    value = generate_cvv(CVK, kind=kind, **card)
    wrong = [f"{number:03d}" for number in range(1000) if f"{number:03d}" != value]
    for guess in [*wrong, "", value[:2], value + "0", "１２３"]:
        with pytest.raises(CardVerificationInvalidError):
            verify_cvv(CVK, kind=kind, value=guess, **card)


def test_the_kinds_differ_by_service_code_alone():
    data = {kind: card_verification_data(kind=kind, service_code=CODES[kind], **CARD).hex() for kind in CODES}
    signed = CARD["pan"] + CARD["expiry"]
    assert data == {
        CVV: (signed + "220").ljust(32, "0"),
        ICVV: (signed + "999").ljust(32, "0"),
        CVV2: signed.ljust(32, "0"),
    }


@pytest.mark.parametrize("service_code", ["", "22", "2200", "2a0", "２２０", "000", "999"])
def test_a_stripe_has_a_service_code_and_none_of_another_kind(service_code):
    with pytest.raises(ValueError, match="service code"):
        generate_cvv(CVK, kind=CVV, service_code=service_code, **CARD)


@pytest.mark.parametrize("kind", [ICVV, CVV2], ids=lambda kind: kind.value)
@pytest.mark.parametrize("service_code", ["220", "000", "999"])
def test_where_the_service_code_is_fixed_none_is_taken(kind, service_code):
    with pytest.raises(ValueError, match="is fixed"):
        generate_cvv(CVK, kind=kind, service_code=service_code, **CARD)


@pytest.mark.parametrize(
    "changed",
    [
        {"pan": "12345678901"},
        {"pan": "1" * 20},
        {"pan": "621700001001234567x"},
        {"expiry": "311"},
        {"expiry": "03112"},
        {"expiry": "31/1"},
        {"expiry": "３１１２"},
    ],
    ids=str,
)
def test_malformed_card_data_are_refused(changed):
    with pytest.raises(ValueError, match="card number"):
        generate_cvv(CVK, kind=CVV2, **{**CARD, **changed})


@pytest.mark.parametrize(
    "key",
    [
        Key(Cipher.SM4, KeyUsage.CARD_VERIFICATION, CVK.value),
        Key(Cipher.AES, KeyUsage.CARD_VERIFICATION, CVK.value),
        Key(Cipher.TDES, KeyUsage.PIN_VERIFICATION_PVV, CVK.value),
    ],
    ids=repr,
)
def test_only_a_3des_card_verification_key_serves(key):
    with pytest.raises(KeyUsageError):
        generate_cvv(key, kind=CVV2, **CARD)
    with pytest.raises(KeyUsageError):
        verify_cvv(key, kind=CVV2, value="123", **CARD)


@pytest.mark.parametrize(
    ("mac", "value"),
    [("abc1de2f3a4b5c6d", "123"), ("abcdefabcdefab1c", "101"), ("fedcbafedcbafedc", "543")],
)
def test_letters_fill_in_where_decimals_run_out(mac, value):
    assert card_verification_value(bytes.fromhex(mac)) == value
