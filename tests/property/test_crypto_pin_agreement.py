"""PINs and card verification values: agreement with psec, an independent implementation, and round trips."""

import random
from functools import partial

import psec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crypto.blocks import encrypt_ecb
from crypto.card_verification import CardVerificationKind, generate_cvv
from crypto.errors import PinBlockInvalidError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.pin_block import (
    ALLOWED_TRANSLATIONS,
    Pin,
    PinBlockFormat,
    decode_pin_block,
    decrypt_pin_block,
    encode_pin_block,
    encrypt_pin_block,
    encrypt_pin_blocks,
    translate_pin_block,
)
from crypto.pin_verification import (
    Ibm3624Layout,
    generate_natural_pin,
    generate_pin_offset,
    generate_pvv,
)

INPUTS = 10_000
SEED = 20260101
CIPHERS = {
    PinBlockFormat.ISO_0: Cipher.TDES,
    PinBlockFormat.ISO_1: Cipher.TDES,
    PinBlockFormat.ISO_3: Cipher.TDES,
    PinBlockFormat.ISO_4: Cipher.AES,
    PinBlockFormat.SM4_0: Cipher.SM4,
}
FORMATS = st.sampled_from(PinBlockFormat)
PAIRS = st.sampled_from(
    [
        (source, to)
        for source, targets in ALLOWED_TRANSLATIONS.items()
        for to in PinBlockFormat
        if to in targets
    ]
)
PINS = st.text("0123456789", min_size=4, max_size=12)
PANS = st.text("0123456789", min_size=13, max_size=19)
VALUES = st.binary(min_size=16, max_size=16)

# psec calls the library's 3DES by its old name and with short keys. Our own calls are proven free of these
# warnings by the unit tests, which run without this filter.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*TripleDES:cryptography.utils.CryptographyDeprecationWarning"
)


@pytest.fixture
def draw() -> random.Random:
    return random.Random(SEED)


def digits(draw: random.Random, size_min: int, size_max: int) -> str:
    size = draw.randint(size_min, size_max)
    return f"{draw.randrange(10**size):0{size}d}"


def outcome(decode, *arguments):
    """The PIN that psec reads, or None where it refuses."""
    try:
        return decode(*arguments)
    except ValueError:
        return None


def read(block: bytes, *, pan: str, layout: PinBlockFormat) -> str | None:
    try:
        return decode_pin_block(block, pan=pan, format=layout).digits
    except PinBlockInvalidError:
        return None


def test_format_0_blocks_agree(draw):
    for _ in range(INPUTS):
        pin, pan = digits(draw, 4, 12), digits(draw, 13, 19)
        block = encode_pin_block(Pin(pin), pan=pan, format=PinBlockFormat.ISO_0)
        assert block == psec.pinblock.encode_pinblock_iso_0(pin, pan)
        assert psec.pinblock.decode_pinblock_iso_0(block, pan) == pin


def test_format_3_blocks_are_read_by_either_side(draw):
    for _ in range(INPUTS):
        pin, pan = digits(draw, 4, 12), digits(draw, 13, 19)
        block = encode_pin_block(Pin(pin), pan=pan, format=PinBlockFormat.ISO_3)
        assert psec.pinblock.decode_pinblock_iso_3(block, pan) == pin
        block = psec.pinblock.encode_pinblock_iso_3(pin, pan)
        assert read(block, pan=pan, layout=PinBlockFormat.ISO_3) == pin


def test_format_4_blocks_are_read_by_either_side(draw):
    value = draw.randbytes(32)
    key = Key(Cipher.AES, KeyUsage.PIN_ENCRYPTION, value)
    cards = [(Pin(digits(draw, 4, 12)), digits(draw, 12, 19)) for _ in range(INPUTS)]
    blocks = encrypt_pin_blocks(partial(encrypt_ecb, key), cards, format=PinBlockFormat.ISO_4)
    for (pin, pan), block in zip(cards, blocks, strict=True):
        assert psec.pinblock.decipher_pinblock_iso_4(value, block, pan) == pin.digits
    for pin, pan in cards[: INPUTS // 5]:
        block = psec.pinblock.encipher_pinblock_iso_4(value, pin.digits, pan)
        assert decrypt_pin_block(key, block, pan=pan, format=PinBlockFormat.ISO_4) == pin


@pytest.mark.parametrize(
    ("layout", "decode"),
    [
        (PinBlockFormat.ISO_0, psec.pinblock.decode_pinblock_iso_0),
        (PinBlockFormat.ISO_3, psec.pinblock.decode_pinblock_iso_3),
    ],
    ids=["format 0", "format 3"],
)
def test_blocks_with_one_changed_bit_are_refused_by_both_sides_or_by_none(draw, layout, decode):
    read_count = 0
    for _ in range(INPUTS):
        pin, pan = digits(draw, 4, 12), digits(draw, 13, 19)
        block = encode_pin_block(Pin(pin), pan=pan, format=layout)
        block = (int.from_bytes(block) ^ 1 << draw.randrange(64)).to_bytes(8)
        expected = outcome(decode, block, pan)
        read_count += expected is not None
        assert read(block, pan=pan, layout=layout) == expected
    assert 0 < read_count < INPUTS


def test_format_4_pin_fields_with_one_changed_bit_are_refused_by_both_sides_or_by_none(draw):
    for _ in range(INPUTS):
        pin, pan = digits(draw, 4, 12), digits(draw, 12, 19)
        field = encode_pin_block(Pin(pin), pan=pan, format=PinBlockFormat.ISO_4)
        field = (int.from_bytes(field) ^ 1 << draw.randrange(128)).to_bytes(16)
        expected = outcome(psec.pinblock.decode_pin_field_iso_4, field)
        assert read(field, pan=pan, layout=PinBlockFormat.ISO_4) == expected


def test_pvvs_agree(draw):
    for _ in range(INPUTS):
        key = Key(Cipher.TDES, KeyUsage.PIN_VERIFICATION_PVV, draw.randbytes(16))
        pin, pan, pvki = digits(draw, 4, 4), digits(draw, 12, 19), draw.randrange(10)
        reference = psec.pin.generate_visa_pvv(key.value, str(pvki), pin, pan)
        assert generate_pvv(key, Pin(pin), pan=pan, pvki=pvki) == reference


def draw_layout(draw: random.Random, pan: str) -> Ibm3624Layout:
    length = draw.randint(1, min(16, len(pan)))
    return Ibm3624Layout(
        # Each digit once, and six of them again: never a table that favours few.
        decimalisation="".join(draw.sample("0123456789", 10) + draw.sample("0123456789", 6)),
        pan_start=draw.randint(0, len(pan) - length),
        pan_length=length,
        pad=draw.choice("0123456789ABCDEFabcdef"),
    )


def test_ibm_3624_pins_and_offsets_agree(draw):
    for _ in range(INPUTS):
        key = Key(Cipher.TDES, KeyUsage.PIN_VERIFICATION_IBM3624, draw.randbytes(16))
        pin, pan = digits(draw, 4, 12), digits(draw, 12, 19)
        layout = draw_layout(draw, pan)
        validated = (pan, layout.pan_start, layout.pan_length, layout.pad)
        table = layout.decimalisation
        reference = psec.pin.generate_ibm3624_offset(key.value, table, pin, *validated)
        assert generate_pin_offset(key, Pin(pin), pan=pan, layout=layout) == reference
        natural = psec.pin.generate_ibm3624_pin(key.value, table, "0" * len(pin), *validated)
        assert generate_natural_pin(key, pan=pan, length=len(pin), layout=layout) == Pin(natural)


def test_card_verification_values_agree(draw):
    for _ in range(INPUTS):
        key = Key(Cipher.TDES, KeyUsage.CARD_VERIFICATION, draw.randbytes(16))
        pan, expiry, service_code = digits(draw, 12, 19), digits(draw, 4, 4), f"{draw.randint(1, 998):03d}"
        value = generate_cvv(
            key, kind=CardVerificationKind.CVV, pan=pan, expiry=expiry, service_code=service_code
        )
        reference = psec.cvv.generate_cvv(key.value, pan, expiry, service_code)
        # psec leaves out the second pass: where decimals run out, its value is too short.
        assert len(value) == 3
        assert value.startswith(reference)


@given(digits=PINS, pan=PANS, layout=FORMATS, value=VALUES)
def test_what_is_encoded_and_encrypted_is_read_back(digits, pan, layout, value):
    pin = Pin(digits)
    assert decode_pin_block(encode_pin_block(pin, pan=pan, format=layout), pan=pan, format=layout) == pin
    key = Key(CIPHERS[layout], KeyUsage.PIN_ENCRYPTION, value)
    block = encrypt_pin_block(key, pin, pan=pan, format=layout)
    assert decrypt_pin_block(key, block, pan=pan, format=layout) == pin


@given(digits=PINS, pan=PANS, pair=PAIRS, source_value=VALUES, target_value=VALUES)
def test_a_translation_keeps_the_pin(digits, pan, pair, source_value, target_value):
    source, target = pair
    source_key = Key(CIPHERS[source], KeyUsage.PIN_ENCRYPTION, source_value)
    target_key = Key(CIPHERS[target], KeyUsage.PIN_ENCRYPTION, target_value)
    translated = translate_pin_block(
        encrypt_pin_block(source_key, Pin(digits), pan=pan, format=source),
        source_key=source_key,
        source_format=source,
        target_key=target_key,
        target_format=target,
        pan=pan,
    )
    assert decrypt_pin_block(target_key, translated, pan=pan, format=target) == Pin(digits)


@given(digits=PINS, pan=PANS, other=PANS)
def test_the_sm4_profile_never_reads_a_block_of_a_card_that_differs_in_a_bound_digit(digits, pan, other):
    assume(pan[-13:-1] != other[-13:-1])
    block = encode_pin_block(Pin(digits), pan=pan, format=PinBlockFormat.SM4_0)
    assert read(block, pan=other, layout=PinBlockFormat.SM4_0) is None
