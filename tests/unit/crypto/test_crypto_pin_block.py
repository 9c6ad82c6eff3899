"""PIN blocks: read strictly, bound to the card, moved to no weaker format, and one bad block harms no other."""

import copy
import pickle
import random
import re
from functools import partial

import pytest

from crypto import pin_layout
from crypto.blocks import decrypt_ecb, encrypt_ecb
from crypto.errors import KeyUsageError, PinBlockInvalidError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.pin_block import (
    Pin,
    PinBlockFormat,
    decode_pin_block,
    decrypt_pin_block,
    decrypt_pin_blocks,
    encode_pin_block,
    encrypt_pin_block,
    encrypt_pin_blocks,
    translate_pin_block,
)

ISO_0, ISO_1, ISO_3 = PinBlockFormat.ISO_0, PinBlockFormat.ISO_1, PinBlockFormat.ISO_3
ISO_4, SM4_0 = PinBlockFormat.ISO_4, PinBlockFormat.SM4_0
CIPHERS = {ISO_0: Cipher.TDES, ISO_1: Cipher.TDES, ISO_3: Cipher.TDES, ISO_4: Cipher.AES, SM4_0: Cipher.SM4}
BOUND = [ISO_0, ISO_3, ISO_4, SM4_0]
LAYOUTS = {ISO_0: pin_layout.ISO_0, ISO_3: pin_layout.ISO_3, ISO_4: pin_layout.ISO_4, SM4_0: pin_layout.SM4_0}
# Fixed fill, so that what is changed at random decodes by chance either always or never.
FILLS = {ISO_0: "f" * 10, ISO_3: "abcdefabcd", ISO_4: "a" * 10 + "0123456789abcdef", SM4_0: "f" * 26}
# Written from the standard's tables, apart from the code: the clear PIN field of each format.
GRAMMARS = {
    ISO_0: "|".join(rf"0{n:X}\d{{{n}}}F{{{14 - n}}}" for n in range(4, 13)),
    ISO_1: "|".join(rf"1{n:X}\d{{{n}}}[0-9A-F]{{{14 - n}}}" for n in range(4, 13)),
    ISO_3: "|".join(rf"3{n:X}\d{{{n}}}[A-F]{{{14 - n}}}" for n in range(4, 13)),
    ISO_4: "|".join(rf"4{n:X}\d{{{n}}}A{{{14 - n}}}[0-9A-F]{{16}}" for n in range(4, 13)),
    SM4_0: "|".join(rf"0{n:X}\d{{{n}}}F{{{30 - n}}}" for n in range(4, 13)),
}
PIN = Pin("1234")
PAN = "6217000010012345678"
ZERO_PAN = "0" * 13
VALUE = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
OTHER_VALUE = bytes.fromhex("99999999999999998888888888888888")
ALL = pytest.mark.parametrize("layout", list(PinBlockFormat), ids=lambda layout: layout.value)
ALL_BOUND = pytest.mark.parametrize("layout", BOUND, ids=lambda layout: layout.value)


def pin_key(layout: PinBlockFormat, value: bytes = VALUE) -> Key:
    return Key(CIPHERS[layout], KeyUsage.PIN_ENCRYPTION, value)


def sealed(layout: PinBlockFormat, *, pan: str = PAN, digits: str = "1234") -> bytes:
    encrypt = partial(encrypt_ecb, pin_key(layout))
    fills = [FILLS[layout]]
    [block] = pin_layout.seal_blocks(encrypt, [(digits, pan)], LAYOUTS[layout], fills=fills)
    assert block is not None
    return block


def decodes(layout: PinBlockFormat, block: bytes, *, pan: str = PAN, value: bytes = VALUE) -> bool:
    try:
        decrypt_pin_block(pin_key(layout, value), block, pan=pan, format=layout)
    except PinBlockInvalidError:
        return False
    return True


def changed_digits(pan: str, positions: range) -> list[tuple[int, str]]:
    return [
        (at, pan[:at] + digit + pan[at + 1 :])
        for at in positions
        for digit in "0123456789"
        if digit != pan[at]
    ]


def test_format_0_known_answer(vectors):
    v = vectors["pin block format 0"]
    block = encode_pin_block(Pin(v["pin"]), pan=v["pan"], format=ISO_0)
    assert block.hex().upper() == v["clear"]
    assert decode_pin_block(block, pan=v["pan"], format=ISO_0) == Pin(v["pin"])


def test_format_4_known_answer(vectors):
    v = vectors["pin block format 4"]
    pan = v["pan_field"][1 : 13 + int(v["pan_field"][0])]
    key = Key(Cipher.AES, KeyUsage.PIN_ENCRYPTION, bytes.fromhex(v["key"]))
    fills = [v["pin_field"][6:].lower()]
    assert (
        pin_layout.write_pin_fields(["1234"], pin_layout.ISO_4, fills=fills).hex().upper() == v["pin_field"]
    )
    [block] = pin_layout.seal_blocks(
        partial(encrypt_ecb, key), [("1234", pan)], pin_layout.ISO_4, fills=fills
    )
    assert block.hex().upper() == v["encrypted"]
    assert decrypt_pin_block(key, block, pan=pan, format=ISO_4) == PIN


def test_sm4_profile_is_format_0_on_sixteen_bytes():
    block = encode_pin_block(Pin("123456"), pan="6217000010012345678", format=SM4_0)
    pin_field, pan_field = "06123456" + "F" * 24, "0" * 20 + "001001234567"
    assert int.from_bytes(block) == int(pin_field, 16) ^ int(pan_field, 16)


@pytest.mark.parametrize("digits", ["123", "1234567890123", "12a4", "１２３４", "", "12 34"])
def test_a_pin_has_4_to_12_decimal_digits(digits):
    with pytest.raises(ValueError, match="4 to 12 digits"):
        Pin(digits)


def test_a_pin_is_never_shown_hashed_or_taken_along():
    pin = Pin("867530")
    assert "867530" not in f"{pin!r} {pin} {[pin]}"
    with pytest.raises(TypeError):
        hash(pin)
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            take(pin)
    with pytest.raises(AttributeError):
        pin.digits = "1234"


def test_pins_are_equal_by_all_their_digits():
    assert Pin("1234") == Pin("1234")
    assert Pin("1234") != Pin("12345")
    assert Pin("1234") != Pin("1235")
    assert Pin("1234") != "1234"


@ALL
@pytest.mark.parametrize("length", range(4, 13))
def test_each_nibble_of_a_clear_block_is_read_strictly(layout, length):
    """The PAN field of this PAN is zero: the block is the PIN field, and every nibble takes every value."""
    digits = "987654321098"[:length]
    field = encode_pin_block(Pin(digits), pan=ZERO_PAN, format=layout).hex().upper()
    for at in range(len(field)):
        for value in "0123456789ABCDEF":
            changed = field[:at] + value + field[at + 1 :]
            try:
                pin = decode_pin_block(bytes.fromhex(changed), pan=ZERO_PAN, format=layout)
            except PinBlockInvalidError:
                assert not re.fullmatch(GRAMMARS[layout], changed)
            else:
                assert re.fullmatch(GRAMMARS[layout], changed)
                assert pin.digits == changed[2 : 2 + int(changed[1], 16)]


@ALL
def test_every_refusal_reads_the_same(layout):
    block = encrypt_pin_block(pin_key(layout), PIN, pan=PAN, format=layout)
    texts = set()
    refused = [(block[:-1], PAN), (block + b"\0", PAN), (b"", PAN), (block * 2, PAN)]
    if layout is not ISO_1:
        refused += [
            (block, pan)
            for pan in ("", "12345678901", "1" * 20, "62170000100x", "６２１７００００１００１２")
        ]
    for wrong, pan in refused:
        with pytest.raises(PinBlockInvalidError) as caught:
            decrypt_pin_block(pin_key(layout), wrong, pan=pan, format=layout)
        texts.add(str(caught.value))
    clear = bytes(len(block))
    with pytest.raises(PinBlockInvalidError) as caught:
        decode_pin_block(clear, pan=PAN, format=layout)
    assert texts == {str(caught.value)}


@ALL_BOUND
def test_a_malformed_pan_is_refused_before_anything_is_encrypted(layout):
    too_short = "1" * (11 if layout is ISO_4 else 12)
    for pan in (too_short, "1" * 20, "6217000010x12", "６２１７００００１００１２"):
        with pytest.raises(ValueError, match="card number"):
            encrypt_pin_block(pin_key(layout), PIN, pan=pan, format=layout)
        with pytest.raises(ValueError, match="card number"):
            encode_pin_block(PIN, pan=pan, format=layout)


@ALL
def test_a_key_for_something_else_or_of_another_cipher_is_refused(layout):
    block = encrypt_pin_block(pin_key(layout), PIN, pan=PAN, format=layout)
    wrong = [Key(CIPHERS[layout], KeyUsage.DATA_ENCRYPTION, VALUE)]
    wrong += [
        Key(cipher, KeyUsage.PIN_ENCRYPTION, VALUE)
        for cipher in (Cipher.TDES, Cipher.AES, Cipher.SM4)
        if cipher is not CIPHERS[layout]
    ]
    for key in wrong:
        with pytest.raises(KeyUsageError):
            encrypt_pin_block(key, PIN, pan=PAN, format=layout)
        with pytest.raises(KeyUsageError):
            decrypt_pin_block(key, block, pan=PAN, format=layout)
        for source, target in ((key, pin_key(layout)), (pin_key(layout), key)):
            with pytest.raises(KeyUsageError):
                translate_pin_block(
                    block,
                    source_key=source,
                    source_format=layout,
                    target_key=target,
                    target_format=layout,
                    pan=PAN,
                )


@ALL_BOUND
def test_any_changed_bit_and_any_other_key_is_refused(layout):
    block = sealed(layout)
    assert decodes(layout, block)
    for bit in range(8 * len(block)):
        assert not decodes(layout, (int.from_bytes(block) ^ 1 << bit).to_bytes(len(block)))
    assert not decodes(layout, block, value=OTHER_VALUE)


def test_format_1_takes_a_random_block_for_a_pin_once_in_640():
    draw = random.Random(20260101)
    blocks = [(draw.randbytes(8), "") for _ in range(64_000)]
    pins = decrypt_pin_blocks(partial(decrypt_ecb, pin_key(ISO_1)), blocks, format=ISO_1)
    assert 60 < sum(isinstance(pin, Pin) for pin in pins) < 140


def test_format_1_is_bound_to_no_pan():
    block = encrypt_pin_block(pin_key(ISO_1), PIN, pan="", format=ISO_1)
    assert decrypt_pin_block(pin_key(ISO_1), block, pan=PAN, format=ISO_1) == PIN


def test_format_4_is_bound_to_every_digit_of_the_pan_and_to_their_number():
    block = sealed(ISO_4)
    for _, pan in changed_digits(PAN, range(len(PAN))):
        assert not decodes(ISO_4, block, pan=pan)
    assert not decodes(ISO_4, block, pan=PAN[:-1])
    assert not decodes(ISO_4, sealed(ISO_4, pan=PAN[:-1]), pan=PAN[:-1] + "0")


@pytest.mark.parametrize("digits", ["1234", "123456789012"])
def test_the_sm4_profile_is_bound_to_each_of_the_twelve_digits(digits):
    block = sealed(SM4_0, digits=digits)
    for _, pan in changed_digits(PAN, range(len(PAN) - 13, len(PAN) - 1)):
        assert not decodes(SM4_0, block, pan=pan)


@pytest.mark.parametrize("digits", ["1234", "123456", "123456789012"])
def test_format_0_notices_another_pan_unless_pin_digits_stay_decimal(digits):
    block = sealed(ISO_0, digits=digits)
    first = len(PAN) - 13
    for at, pan in changed_digits(PAN, range(first, len(PAN) - 1)):
        # The first bound PAN digit stands over the third PIN digit.
        under = at - first + 2
        over_pin = under < len(digits)
        altered = int(digits[under]) ^ int(PAN[at]) ^ int(pan[at]) if over_pin else 15
        assert decodes(ISO_0, block, pan=pan) == (over_pin and altered <= 9)


def test_format_3_does_not_notice_a_pan_digit_that_differs_in_its_last_bit():
    block = sealed(ISO_3)
    neighbour = PAN[:-2] + str(int(PAN[-2]) ^ 1) + PAN[-1]
    assert decodes(ISO_3, block, pan=neighbour)
    for digit in "89" if int(PAN[-2]) < 8 else "0123":
        assert not decodes(ISO_3, block, pan=PAN[:-2] + digit + PAN[-1])


@pytest.mark.parametrize("layout", [ISO_0, ISO_3, SM4_0], ids=lambda layout: layout.value)
def test_the_check_digit_and_the_first_digits_are_not_bound(layout):
    block = sealed(layout)
    for _, pan in changed_digits(PAN, range(len(PAN) - 13)) + changed_digits(PAN, range(18, 19)):
        assert decodes(layout, block, pan=pan)


@ALL
def test_random_fill_is_drawn_for_each_block(layout):
    key = pin_key(layout)
    encrypt = partial(encrypt_ecb, key)
    blocks = encrypt_pin_blocks(encrypt, [(PIN, PAN)] * 200, format=layout)
    drawn = layout in (ISO_1, ISO_3, ISO_4)
    assert len(set(blocks)) == (200 if drawn else 1)


def test_format_3_fill_is_of_all_six_letters():
    fields = pin_layout.write_pin_fields(["1234"] * 200, pin_layout.ISO_3).hex()
    fill = "".join(fields[at + 6 : at + 16] for at in range(0, len(fields), 16))
    counts = [fill.count(letter) for letter in "abcdef"]
    assert sum(counts) == 2000
    assert min(counts) > 200
