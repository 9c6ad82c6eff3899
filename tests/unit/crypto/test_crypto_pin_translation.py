"""PINs on their way: never to a weaker format, never to another card, and in batches of which each stands alone."""

from functools import partial

import pytest

from crypto.blocks import decrypt_ecb, encrypt_ecb
from crypto.errors import PinBlockInvalidError, PinTranslationRefusedError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.pin_block import (
    Pin,
    PinBlockFormat,
    decrypt_pin_block,
    decrypt_pin_blocks,
    encrypt_pin_block,
    encrypt_pin_blocks,
    translate_pin_block,
    translate_pin_blocks,
)

ISO_0, ISO_1, ISO_3 = PinBlockFormat.ISO_0, PinBlockFormat.ISO_1, PinBlockFormat.ISO_3
ISO_4, SM4_0 = PinBlockFormat.ISO_4, PinBlockFormat.SM4_0
CIPHERS = {ISO_0: Cipher.TDES, ISO_1: Cipher.TDES, ISO_3: Cipher.TDES, ISO_4: Cipher.AES, SM4_0: Cipher.SM4}
# By hand, so that a change of the code's table has to be made twice.
PERMITTED = {
    *((ISO_1, target) for target in (ISO_0, ISO_1, ISO_3, ISO_4, SM4_0)),
    *((ISO_0, target) for target in (ISO_0, ISO_3, ISO_4, SM4_0)),
    *((ISO_3, target) for target in (ISO_3, ISO_4, SM4_0)),
    *((ISO_4, target) for target in (ISO_4, SM4_0)),
    *((SM4_0, target) for target in (ISO_4, SM4_0)),
}
PAIRS = [(source, target) for source in PinBlockFormat for target in PinBlockFormat]
PIN = Pin("482913")
PAN, OTHER_PAN = "6217000010012345678", "6217000010098765432"
ALL = pytest.mark.parametrize("layout", list(PinBlockFormat), ids=lambda layout: layout.value)


def source_key(layout: PinBlockFormat) -> Key:
    return Key(CIPHERS[layout], KeyUsage.PIN_ENCRYPTION, bytes(range(16)))


def target_key(layout: PinBlockFormat) -> Key:
    return Key(CIPHERS[layout], KeyUsage.PIN_ENCRYPTION, bytes(range(16, 32)))


class Counted:
    """A block operation that counts how often it is asked."""

    def __init__(self, operation, key: Key) -> None:
        self.calls = 0
        self._operation = partial(operation, key)

    def __call__(self, blocks: bytes) -> bytes:
        self.calls += 1
        return self._operation(blocks)


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda layout: layout.value)
def test_a_pin_goes_to_formats_as_strong_and_to_no_other(source, target):
    block = encrypt_pin_block(source_key(source), PIN, pan=PAN, format=source)
    translate = partial(
        translate_pin_block,
        block,
        source_key=source_key(source),
        source_format=source,
        target_key=target_key(target),
        target_format=target,
        pan=PAN,
    )
    if (source, target) in PERMITTED:
        assert decrypt_pin_block(target_key(target), translate(), pan=PAN, format=target) == PIN
    else:
        with pytest.raises(PinTranslationRefusedError):
            translate()


def test_a_refused_translation_decrypts_nothing():
    decrypt, encrypt = Counted(decrypt_ecb, source_key(ISO_0)), Counted(encrypt_ecb, target_key(ISO_1))
    with pytest.raises(PinTranslationRefusedError):
        translate_pin_blocks(decrypt, encrypt, [(bytes(8), PAN)], source_format=ISO_0, target_format=ISO_1)
    assert (decrypt.calls, encrypt.calls) == (0, 0)


@pytest.mark.parametrize("layout", [ISO_0, ISO_3, ISO_4, SM4_0], ids=lambda layout: layout.value)
def test_a_block_of_another_card_is_not_translated(layout):
    block = encrypt_pin_block(source_key(layout), PIN, pan=PAN, format=layout)
    with pytest.raises(PinBlockInvalidError):
        translate_pin_block(
            block,
            source_key=source_key(layout),
            source_format=layout,
            target_key=target_key(layout),
            target_format=layout,
            pan=OTHER_PAN,
        )


def test_a_pin_from_format_1_becomes_bound_to_the_stated_card():
    block = encrypt_pin_block(source_key(ISO_1), PIN, pan="", format=ISO_1)
    translated = translate_pin_block(
        block,
        source_key=source_key(ISO_1),
        source_format=ISO_1,
        target_key=target_key(ISO_4),
        target_format=ISO_4,
        pan=PAN,
    )
    assert decrypt_pin_block(target_key(ISO_4), translated, pan=PAN, format=ISO_4) == PIN
    with pytest.raises(PinBlockInvalidError):
        decrypt_pin_block(target_key(ISO_4), translated, pan=OTHER_PAN, format=ISO_4)


@ALL
def test_a_bad_item_harms_no_other_and_order_is_kept(layout):
    pins = [Pin(f"{1000 + number}") for number in range(6)]
    pans = [f"62170000100{number:05d}" for number in range(6)]
    encrypt, decrypt = partial(encrypt_ecb, source_key(layout)), partial(decrypt_ecb, source_key(layout))
    items = list(
        zip(encrypt_pin_blocks(encrypt, list(zip(pins, pans, strict=True)), format=layout), pans, strict=True)
    )
    items[1] = (items[1][0][:-1], pans[1])
    items[3] = (b"", pans[3])
    if layout is not ISO_1:
        items[4] = (items[4][0], "no digits")
    bad = {1, 3} if layout is ISO_1 else {1, 3, 4}
    decrypted = decrypt_pin_blocks(decrypt, items, format=layout)
    translated = translate_pin_blocks(
        decrypt,
        partial(encrypt_ecb, target_key(layout)),
        items,
        source_format=layout,
        target_format=layout,
    )
    for at, pin in enumerate(pins):
        if at in bad:
            assert isinstance(decrypted[at], PinBlockInvalidError)
            assert isinstance(translated[at], PinBlockInvalidError)
        else:
            assert decrypted[at] == pin
            assert decrypt_pin_block(target_key(layout), translated[at], pan=pans[at], format=layout) == pin
    assert decrypted[1] is not decrypted[3]


def test_a_pan_that_goes_with_one_format_only_is_refused_in_its_place():
    short, long = "621700001001", PAN
    decrypt, encrypt = partial(decrypt_ecb, source_key(ISO_4)), partial(encrypt_ecb, source_key(ISO_4))
    blocks = encrypt_pin_blocks(encrypt, [(PIN, short), (PIN, long)], format=ISO_4)
    translated = translate_pin_blocks(
        decrypt,
        partial(encrypt_ecb, target_key(SM4_0)),
        [(blocks[0], short), (blocks[1], long)],
        source_format=ISO_4,
        target_format=SM4_0,
    )
    assert isinstance(translated[0], PinBlockInvalidError)
    assert decrypt_pin_block(target_key(SM4_0), translated[1], pan=long, format=SM4_0) == PIN


def test_a_malformed_pan_is_an_answer_in_a_batch_to_encrypt():
    encrypt = partial(encrypt_ecb, source_key(ISO_0))
    refused, block = encrypt_pin_blocks(encrypt, [(PIN, "12"), (PIN, PAN)], format=ISO_0)
    assert isinstance(refused, ValueError)
    assert decrypt_pin_block(source_key(ISO_0), block, pan=PAN, format=ISO_0) == PIN


@ALL
def test_a_batch_costs_one_block_operation_and_two_in_format_4(layout):
    decrypt, encrypt = Counted(decrypt_ecb, source_key(layout)), Counted(encrypt_ecb, source_key(layout))
    blocks = encrypt_pin_blocks(encrypt, [(PIN, PAN)] * 50, format=layout)
    decrypt_pin_blocks(decrypt, [(block, PAN) for block in blocks], format=layout)
    calls = 2 if layout is ISO_4 else 1
    assert (encrypt.calls, decrypt.calls) == (calls, calls)


@ALL
def test_nothing_to_do_asks_for_no_block_operation(layout):
    decrypt, encrypt = Counted(decrypt_ecb, source_key(layout)), Counted(encrypt_ecb, source_key(layout))
    assert encrypt_pin_blocks(encrypt, [], format=layout) == []
    assert decrypt_pin_blocks(decrypt, [], format=layout) == []
    refused = translate_pin_blocks(
        decrypt, encrypt, [(b"short", PAN)], source_format=layout, target_format=layout
    )
    assert isinstance(refused[0], PinBlockInvalidError)
    assert (encrypt.calls, decrypt.calls) == (0, 0)
