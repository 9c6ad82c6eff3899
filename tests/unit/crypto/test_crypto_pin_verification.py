"""PIN references: known answers, what they cover of a PIN, and which tables and keys are refused."""

from functools import partial

import pytest

from crypto import pin_verification
from crypto.blocks import encrypt_ecb
from crypto.decimalisation import scan_decimals
from crypto.errors import KeyUsageError, PinInvalidError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.pin_block import Pin
from crypto.pin_verification import (
    Ibm3624Layout,
    generate_natural_pin,
    generate_pin_offset,
    generate_pin_offsets,
    generate_pvv,
    generate_pvvs,
    issue_random_pin,
    verify_pin_offset,
    verify_pvv,
)

VALUE = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
PAN, OTHER_PAN = "1122334455667788", "1122334455667798"
LAYOUT = Ibm3624Layout(decimalisation="1234567890123456")
CIPHERS = pytest.mark.parametrize(
    "cipher", [Cipher.TDES, Cipher.SM4, Cipher.AES], ids=lambda cipher: cipher.value
)


def pvv_key(cipher: Cipher) -> Key:
    return Key(cipher, KeyUsage.PIN_VERIFICATION_PVV, VALUE)


def ibm_key(cipher: Cipher) -> Key:
    return Key(cipher, KeyUsage.PIN_VERIFICATION_IBM3624, VALUE)


def test_pvv_known_answer(vectors):
    v = vectors["pvv"]
    key = Key(Cipher.TDES, KeyUsage.PIN_VERIFICATION_PVV, bytes.fromhex(v["pvk"]))
    assert generate_pvv(key, Pin(v["pin"]), pan=v["pan"], pvki=int(v["pvki"])) == v["pvv"]


def test_ibm_3624_known_answer(vectors):
    v = vectors["ibm 3624"]
    key = Key(Cipher.TDES, KeyUsage.PIN_VERIFICATION_IBM3624, bytes.fromhex(v["pvk"]))
    layout = Ibm3624Layout(decimalisation=v["decimalisation"])
    assert generate_natural_pin(key, pan=v["pan"], length=4, layout=layout) == Pin(v["natural_pin"])
    assert generate_pin_offset(key, Pin("1234"), pan=v["pan"], layout=layout) == v["offset_for_1234"]
    assert generate_pin_offset(key, Pin(v["natural_pin"]), pan=v["pan"], layout=layout) == "0000"


@pytest.mark.parametrize("cipher", [Cipher.SM4, Cipher.AES], ids=lambda cipher: cipher.value)
def test_the_profile_reads_digits_off_sixteen_bytes(cipher):
    """Step by step, as the module says: the 8 bytes of the standard and 8 zero bytes in one block."""
    block = bytes.fromhex(PAN[4:15] + "1" + "4524") + bytes(8)
    text = encrypt_ecb(pvv_key(cipher), block).hex()
    expected = "".join([digit for digit in text if digit.isdigit()][:4])
    assert generate_pvv(pvv_key(cipher), Pin("4524"), pan=PAN, pvki=1) == expected
    text = encrypt_ecb(ibm_key(cipher), bytes.fromhex(PAN) + bytes(8)).hex()
    natural = "".join(LAYOUT.decimalisation[int(digit, 16)] for digit in text[:6])
    assert generate_natural_pin(ibm_key(cipher), pan=PAN, length=6, layout=LAYOUT) == Pin(natural)


@CIPHERS
def test_a_pvv_fits_its_pin_card_and_key_index_only(cipher):
    key = pvv_key(cipher)
    pvv = generate_pvv(key, Pin("4524"), pan=PAN, pvki=1)
    verify_pvv(key, Pin("4524"), pan=PAN, pvki=1, pvv=pvv)
    wrong_pvv = pvv[:3] + str((int(pvv[3]) + 1) % 10)
    for pin, pan, pvki, reference in (
        ("4525", PAN, 1, pvv),
        ("4524", OTHER_PAN, 1, pvv),
        ("4524", PAN, 2, pvv),
        ("4524", PAN, 1, wrong_pvv),
    ):
        with pytest.raises(PinInvalidError):
            verify_pvv(key, Pin(pin), pan=pan, pvki=pvki, pvv=reference)


def test_a_pvv_covers_the_first_four_digits_only():
    key = pvv_key(Cipher.TDES)
    pvv = generate_pvv(key, Pin("452400"), pan=PAN, pvki=1)
    verify_pvv(key, Pin("452499"), pan=PAN, pvki=1, pvv=pvv)
    with pytest.raises(PinInvalidError):
        verify_pvv(key, Pin("452500"), pan=PAN, pvki=1, pvv=pvv)


@pytest.mark.parametrize("pvv", ["", "123", "12345", "12a4", "１２３４"])
def test_a_malformed_pvv_is_no_wrong_pin(pvv):
    with pytest.raises(ValueError, match="four digits"):
        verify_pvv(pvv_key(Cipher.TDES), Pin("1234"), pan=PAN, pvki=1, pvv=pvv)


@pytest.mark.parametrize("pvki", [-1, 10])
def test_a_key_index_is_one_digit(pvki):
    with pytest.raises(ValueError, match="one digit"):
        generate_pvv(pvv_key(Cipher.TDES), Pin("1234"), pan=PAN, pvki=pvki)


@pytest.mark.parametrize("pan", ["12345678901", "1" * 20, "11223344x5667788", "１１２２３３４４５５６６"])
def test_a_malformed_card_number_is_refused(pan):
    with pytest.raises(ValueError, match="card number"):
        generate_pvv(pvv_key(Cipher.TDES), Pin("1234"), pan=pan, pvki=1)
    with pytest.raises(ValueError, match="card number"):
        generate_pin_offset(ibm_key(Cipher.TDES), Pin("1234"), pan=pan, layout=LAYOUT)


@CIPHERS
def test_many_pvvs_come_of_one_block_operation_and_each_stands_alone(cipher):
    key, calls = pvv_key(cipher), []

    def encrypt(blocks: bytes) -> bytes:
        calls.append(len(blocks))
        return encrypt_ecb(key, blocks)

    size = 8 if cipher is Cipher.TDES else 16
    items = [(Pin("4524"), PAN), (Pin("1234"), "x"), (Pin("9999"), OTHER_PAN)]
    pvvs = generate_pvvs(encrypt, items, size=size, pvki=3)
    assert calls == [2 * size]
    assert isinstance(pvvs[1], ValueError)
    for at in (0, 2):
        assert pvvs[at] == generate_pvv(key, items[at][0], pan=items[at][1], pvki=3)
    assert generate_pvvs(encrypt, [], size=size, pvki=3) == []
    assert len(calls) == 1
    with pytest.raises(ValueError, match="8 or 16 bytes"):
        generate_pvvs(encrypt, items, size=12, pvki=3)


@CIPHERS
def test_many_offsets_come_of_one_block_operation_and_each_stands_alone(cipher):
    key, calls = ibm_key(cipher), []

    def encrypt(blocks: bytes) -> bytes:
        calls.append(len(blocks))
        return encrypt_ecb(key, blocks)

    size = 8 if cipher is Cipher.TDES else 16
    items = [(Pin("4524"), PAN), (Pin("1234"), PAN[:15]), (Pin("999999"), OTHER_PAN)]
    offsets = generate_pin_offsets(encrypt, items, size=size, layout=LAYOUT)
    assert calls == [2 * size]
    assert isinstance(offsets[1], ValueError)
    for at in (0, 2):
        assert offsets[at] == generate_pin_offset(key, items[at][0], pan=items[at][1], layout=LAYOUT)
    assert generate_pin_offsets(encrypt, [], size=size, layout=LAYOUT) == []
    assert len(calls) == 1


def test_keys_of_one_method_do_not_serve_the_other():
    pin = Pin("1234")
    for refused in (
        partial(generate_pvv, ibm_key(Cipher.TDES), pin, pan=PAN, pvki=1),
        partial(verify_pvv, ibm_key(Cipher.TDES), pin, pan=PAN, pvki=1, pvv="1234"),
        partial(generate_natural_pin, pvv_key(Cipher.TDES), pan=PAN, length=4, layout=LAYOUT),
        partial(generate_pin_offset, pvv_key(Cipher.TDES), pin, pan=PAN, layout=LAYOUT),
        partial(verify_pin_offset, pvv_key(Cipher.TDES), pin, pan=PAN, offset="1234", layout=LAYOUT),
    ):
        with pytest.raises(KeyUsageError):
            refused()


@CIPHERS
@pytest.mark.parametrize("digits", ["1234", "123456", "123456789012"])
def test_an_offset_covers_every_digit_of_the_pin(cipher, digits):
    key = ibm_key(cipher)
    offset = generate_pin_offset(key, Pin(digits), pan=PAN, layout=LAYOUT)
    assert len(offset) == len(digits)
    verify_pin_offset(key, Pin(digits), pan=PAN, offset=offset, layout=LAYOUT)
    for at in range(len(digits)):
        wrong = digits[:at] + str((int(digits[at]) + 1) % 10) + digits[at + 1 :]
        with pytest.raises(PinInvalidError):
            verify_pin_offset(key, Pin(wrong), pan=PAN, offset=offset, layout=LAYOUT)
    with pytest.raises(PinInvalidError):
        verify_pin_offset(key, Pin(digits), pan=OTHER_PAN, offset=offset, layout=LAYOUT)


def test_a_pin_of_another_length_does_not_fit_an_offset():
    key = ibm_key(Cipher.TDES)
    offset = generate_pin_offset(key, Pin("123456"), pan=PAN, layout=LAYOUT)
    for digits in ("12345", "1234567"):
        with pytest.raises(PinInvalidError):
            verify_pin_offset(key, Pin(digits), pan=PAN, offset=offset, layout=LAYOUT)


@pytest.mark.parametrize("offset", ["", "123", "1" * 13, "12a4", "１２３４"])
def test_a_malformed_offset_is_no_wrong_pin(offset):
    with pytest.raises(ValueError, match="digits"):
        verify_pin_offset(ibm_key(Cipher.TDES), Pin("1234"), pan=PAN, offset=offset, layout=LAYOUT)


@pytest.mark.parametrize(
    "table",
    [
        "0" * 16,
        "0123456012345601",  # seven distinct digits
        "0000012345678901",  # one digit five times over
        "012345678901234",
        "01234567890123456",
        "0123456789ABCDEF",
        "０１２３４５６７８９０１２３４５",
    ],
)
def test_a_decimalisation_table_that_favours_few_digits_is_refused(table):
    with pytest.raises(ValueError, match="decimalisation table"):
        Ibm3624Layout(decimalisation=table)


def test_a_decimalisation_table_at_its_bounds_is_taken():
    Ibm3624Layout(decimalisation="0000111122334567")


@pytest.mark.parametrize(
    "wrong",
    [{"pan_start": -1}, {"pan_length": 0}, {"pan_length": 17}, {"pad": ""}, {"pad": "FF"}, {"pad": "G"}],
    ids=str,
)
def test_validation_data_have_bounds(wrong):
    with pytest.raises(ValueError, match="validation data"):
        Ibm3624Layout(decimalisation="0123456789012345", **wrong)


def test_validation_data_are_taken_and_filled_as_the_layout_says():
    layout = Ibm3624Layout(decimalisation="0123456789012345", pan_start=4, pan_length=11, pad="d")
    assert layout.validation_data(PAN).hex() == "33445566778ddddd"
    with pytest.raises(ValueError, match="too short"):
        layout.validation_data(PAN[:14])


@pytest.mark.parametrize("length", [3, 13])
def test_a_pin_has_4_to_12_digits(length):
    with pytest.raises(ValueError, match="4 to 12 digits"):
        generate_natural_pin(ibm_key(Cipher.TDES), pan=PAN, length=length, layout=LAYOUT)
    with pytest.raises(ValueError, match="4 to 12 digits"):
        issue_random_pin(length=length)


@pytest.mark.parametrize("length", range(4, 13))
def test_an_issued_pin_has_the_length_asked_for(length):
    assert len(issue_random_pin(length=length).digits) == length


@pytest.mark.parametrize("trivial", [0, 1111, 123, 4567, 7890, 9876, 3210, 2109])
def test_a_trivial_pin_is_drawn_again(monkeypatch, trivial):
    draws = iter([trivial, trivial, 1357])
    monkeypatch.setattr(pin_verification.secrets, "randbelow", lambda _: next(draws))
    assert issue_random_pin(length=4) == Pin("1357")


@pytest.mark.parametrize("kept", [1112, 1235, 9875, 21, 1212])
def test_a_pin_that_is_not_trivial_is_kept(monkeypatch, kept):
    monkeypatch.setattr(pin_verification.secrets, "randbelow", lambda _: kept)
    assert issue_random_pin(length=4) == Pin(f"{kept:04d}")


@pytest.mark.parametrize(
    ("encrypted", "digits"),
    [
        ("abcd1234ef567890", "1234"),
        ("abcdefabcdefab12", "1201"),
        ("abcdefabcdefabcd", "0123"),
        ("f1e2d3abcdefabcd", "1235"),
    ],
)
def test_letters_fill_in_where_decimals_run_out(encrypted, digits):
    assert scan_decimals(bytes.fromhex(encrypted), count=4) == digits
