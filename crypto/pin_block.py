"""PIN blocks: how a PIN travels under a key, bound to the card it belongs to.

What a changed block, a wrong key or another PAN comes to; ``n`` is the PIN's length, and "once in" is for a
decryption that came out at random:

- ISO_0: a changed block or wrong key decodes once in 16 million. Another PAN is refused when it differs in the
  last 14 - n of the 12 digits bound; where it differs only before them, it alters PIN digits and is
  refused only when one of these is no longer decimal.
- ISO_1: not bound to a PAN. A changed block or wrong key decodes, to a random PIN, once in 640.
- ISO_3: once in 200,000. Another PAN is refused as under ISO_0, but a fill digit that turns into another letter
  is not noticed: one PAN digit in two, and always where two digits differ in their last bit only (2 and 3).
- ISO_4: a changed block, wrong key or another PAN, in any digit: once in 16 million.
- SM4_0: another PAN is always refused; a changed block or wrong key decodes once in 10**26. Its fill is fixed:
  the same PIN of the same card gives the same block under the same key.

All but ISO_4 bind neither the check digit nor what stands before the 13 last digits.

Must never tell why a block was refused, show a PIN, or move one to a weaker format or to another card.
"""

import enum
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, SupportsIndex

from crypto import pin_layout
from crypto.blocks import decrypt_ecb, encrypt_ecb
from crypto.errors import KeyUsageError, PinBlockInvalidError, PinTranslationRefusedError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.pin_layout import PIN_LENGTH_MAX, PIN_LENGTH_MIN, BlockOperation, Layout


class PinBlockFormat(enum.Enum):
    """Layout of a PIN block, and with it the cipher: 3DES for ISO 0, 1 and 3, AES for ISO 4, SM4 for SM4_0.

    SM4_0 is a profile of this project: format 0 stretched to one SM4 block. PIN field: 0, length, PIN digits,
    F to 16 bytes. PAN field: ten zero bytes, then the twelve digits of format 0. The block is their xor.
    """

    ISO_0 = "ISO_0"
    ISO_1 = "ISO_1"
    ISO_3 = "ISO_3"
    ISO_4 = "ISO_4"
    SM4_0 = "SM4_0"

    # Enum hashes in Python, 0.2 µs per look-up; members are singletons anyway.
    __hash__ = object.__hash__


_LAYOUTS: dict[PinBlockFormat, Layout] = {
    PinBlockFormat.ISO_0: pin_layout.ISO_0,
    PinBlockFormat.ISO_1: pin_layout.ISO_1,
    PinBlockFormat.ISO_3: pin_layout.ISO_3,
    PinBlockFormat.ISO_4: pin_layout.ISO_4,
    PinBlockFormat.SM4_0: pin_layout.SM4_0,
}
_STRONGEST = frozenset({PinBlockFormat.ISO_4, PinBlockFormat.SM4_0})
# From a format to those a PIN may go on in: itself, and what protects it better. ISO 9564-1 and PCI PIN
# requirement 3-3 forbid the step from a bound format to format 1 and any change of the PAN; they leave open the
# step down among the bound ones (4 to 3 or 0, 3 to 0), which is refused here as well. From format 1 the PIN
# becomes bound to the PAN that is stated. ISO_4 and SM4_0 (not in the standards) count as equals: 128-bit
# keys, and no PAN but the right one.
ALLOWED_TRANSLATIONS: dict[PinBlockFormat, frozenset[PinBlockFormat]] = {
    PinBlockFormat.ISO_1: frozenset(PinBlockFormat),
    PinBlockFormat.ISO_0: _STRONGEST | {PinBlockFormat.ISO_0, PinBlockFormat.ISO_3},
    PinBlockFormat.ISO_3: _STRONGEST | {PinBlockFormat.ISO_3},
    PinBlockFormat.ISO_4: _STRONGEST,
    PinBlockFormat.SM4_0: _STRONGEST,
}


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Pin:
    """A cardholder's PIN; its digits are in no ``repr``, format, pickle or copy.

    Args:
        digits: 4 to 12 decimal digits.
    Raises:
        ValueError: not such digits.
    Source: ISO 9564-1:2017, 8.1 (length).
    """

    digits: str

    def __post_init__(self) -> None:
        digits = self.digits
        is_decimal = digits.isdigit() and digits.isascii()
        if not (is_decimal and PIN_LENGTH_MIN <= len(digits) <= PIN_LENGTH_MAX):
            raise ValueError(f"a PIN has {PIN_LENGTH_MIN} to {PIN_LENGTH_MAX} digits")

    def __repr__(self) -> str:
        return "Pin(****)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pin):
            return NotImplemented
        # Filled to one length, because the comparison answers at once where lengths differ.
        ours, theirs = (pin.digits.ljust(PIN_LENGTH_MAX, "F") for pin in (self, other))
        return hmac.compare_digest(ours, theirs)

    # There are so few PINs that a hash gives one away.
    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("PINs are neither pickled nor copied")


def encode_pin_block(pin: Pin, *, pan: str, format: PinBlockFormat) -> bytes:  # noqa: A002
    """Clear PIN block: 8 bytes; 16 for ISO_4 and SM4_0.

    Args:
        pin: the PIN.
        pan: 13 to 19 digits; 12 to 19 for ISO_4; not looked at for ISO_1.
        format: the layout. Of ISO_4 this is the PIN field alone: there the PAN enters between two encryptions,
            and no clear block holds it.
    Raises:
        ValueError: malformed PAN.
    Source: ISO 9564-1:2017, 9.3 (formats 0, 1, 3) and 9.4 (format 4); SM4_0 is a profile of this project.
    """
    layout = _LAYOUTS[format]
    pan_field = layout.pan_field(pan)
    if pan_field is None:
        raise _malformed_pan()
    pin_field = pin_layout.write_pin_fields([pin.digits], layout)
    return pin_field if layout.encrypts_twice else pin_layout.xor_pan_field(pin_field, pan_field)


def decode_pin_block(block: bytes, *, pan: str, format: PinBlockFormat) -> Pin:  # noqa: A002
    """The PIN of a clear block; inverse of ``encode_pin_block``, with the same arguments and source.

    Raises:
        PinBlockInvalidError: any nibble is not as the format says, the block has another size, or the PAN is
            malformed.
    """
    layout = _LAYOUTS[format]
    pan_field = layout.pan_field(pan)
    if pan_field is None or len(block) != layout.size:
        raise _invalid()
    pin_field = block if layout.encrypts_twice else pin_layout.xor_pan_field(block, pan_field)
    [digits] = pin_layout.read_pin_fields(pin_field, layout)
    if digits is None:
        raise _invalid()
    return Pin(digits)


def encrypt_pin_block(key: Key, pin: Pin, *, pan: str, format: PinBlockFormat) -> bytes:  # noqa: A002
    """Encrypted PIN block: 8 bytes under 3DES, 16 under AES and SM4.

    Args:
        key: usage ``PIN_ENCRYPTION``, of the format's cipher.
        pin: the PIN.
        pan: 13 to 19 digits; 12 to 19 for ISO_4; not looked at for ISO_1.
        format: the layout.
    Raises:
        KeyUsageError: the key is for something else, or of another cipher.
        ValueError: malformed PAN.
    Source: ISO 9564-1:2017, 9.3 and 9.4.3; SM4_0 is a profile of this project.
    """
    _require_key(key, format)
    [block] = encrypt_pin_blocks(partial(encrypt_ecb, key), [(pin, pan)], format=format)
    if isinstance(block, ValueError):
        raise block
    return block


def decrypt_pin_block(key: Key, block: bytes, *, pan: str, format: PinBlockFormat) -> Pin:  # noqa: A002
    """The PIN of an encrypted block; inverse of ``encrypt_pin_block``, with the same arguments and source.

    Raises:
        KeyUsageError: the key is for something else, or of another cipher.
        PinBlockInvalidError: the block does not decode, has another size, or the PAN is malformed.
    """
    _require_key(key, format)
    [pin] = decrypt_pin_blocks(partial(decrypt_ecb, key), [(block, pan)], format=format)
    if isinstance(pin, PinBlockInvalidError):
        raise pin
    return pin


def translate_pin_block(
    block: bytes,
    *,
    source_key: Key,
    source_format: PinBlockFormat,
    target_key: Key,
    target_format: PinBlockFormat,
    pan: str,
) -> bytes:
    """Moves a PIN to another key, for the same card; fill that is random is drawn anew.

    Args:
        block: encrypted under ``source_key``.
        source_key: usage ``PIN_ENCRYPTION``, of the source format's cipher.
        source_format: layout of ``block``.
        target_key: usage ``PIN_ENCRYPTION``, of the target format's cipher.
        target_format: layout of the answer.
        pan: of both sides.
    Raises:
        KeyUsageError: a key is for something else, or of another cipher.
        PinBlockInvalidError: the block does not decode, has another size, or the PAN does not go with a format.
        PinTranslationRefusedError: not in ``ALLOWED_TRANSLATIONS``.
    Source: ISO 9564-1:2017, PIN block translation restrictions; PCI PIN Security 3-3; see
        ``ALLOWED_TRANSLATIONS``.
    """
    _require_key(source_key, source_format)
    _require_key(target_key, target_format)
    [translated] = translate_pin_blocks(
        partial(decrypt_ecb, source_key),
        partial(encrypt_ecb, target_key),
        [(block, pan)],
        source_format=source_format,
        target_format=target_format,
    )
    if isinstance(translated, PinBlockInvalidError):
        raise translated
    return translated


def encrypt_pin_blocks(
    encrypt: BlockOperation,
    items: Sequence[tuple[Pin, str]],
    *,
    format: PinBlockFormat,  # noqa: A002
) -> list[bytes | ValueError]:
    """Encrypts many PINs under one key in one block operation, two for ISO_4.

    Args:
        encrypt: ECB of whole blocks under a PIN encryption key of the format's cipher; the caller answers for
            the key.
        items: PIN and PAN of each.
        format: the layout.
    Returns:
        In the order of ``items``: the block, or ``ValueError`` where the PAN is malformed.
    """
    pins = [(pin.digits, pan) for pin, pan in items]
    sealed = pin_layout.seal_blocks(encrypt, pins, _LAYOUTS[format])
    return [_malformed_pan() if block is None else block for block in sealed]


def decrypt_pin_blocks(
    decrypt: BlockOperation,
    items: Sequence[tuple[bytes, str]],
    *,
    format: PinBlockFormat,  # noqa: A002
) -> list[Pin | PinBlockInvalidError]:
    """Decrypts many blocks under one key in one block operation, two for ISO_4.

    Args:
        decrypt: ECB of whole blocks under a PIN encryption key of the format's cipher; the caller answers for
            the key.
        items: encrypted block and PAN of each.
        format: the layout.
    Returns:
        In the order of ``items``: the PIN, or ``PinBlockInvalidError`` where the block does not decode, has
        another size, or the PAN is malformed.
    """
    opened = pin_layout.open_blocks(decrypt, items, _LAYOUTS[format])
    return [_invalid() if digits is None else Pin(digits) for digits in opened]


def translate_pin_blocks(
    decrypt: BlockOperation,
    encrypt: BlockOperation,
    items: Sequence[tuple[bytes, str]],
    *,
    source_format: PinBlockFormat,
    target_format: PinBlockFormat,
) -> list[bytes | PinBlockInvalidError]:
    """Moves many PINs from one key to another, each for its own card: see ``translate_pin_block``.

    Args:
        decrypt: ECB of whole blocks under the source key; the caller answers for the key.
        encrypt: ECB of whole blocks under the target key; the same.
        items: encrypted block and PAN of each.
        source_format: layout of the blocks.
        target_format: layout of the answers.
    Returns:
        In the order of ``items``: the block, or ``PinBlockInvalidError`` where the source does not decode, has
        another size, or the PAN does not go with one of the formats.
    Raises:
        PinTranslationRefusedError: not in ``ALLOWED_TRANSLATIONS``; no block operation was asked for.
    """
    require_translation(source_format=source_format, target_format=target_format)
    opened = pin_layout.open_blocks(decrypt, items, _LAYOUTS[source_format])
    pins = [(digits, pan) for digits, (_, pan) in zip(opened, items, strict=True)]
    sealed = pin_layout.seal_blocks(encrypt, pins, _LAYOUTS[target_format])
    return [_invalid() if block is None else block for block in sealed]


def require_translation(*, source_format: PinBlockFormat, target_format: PinBlockFormat) -> None:
    """Refuses a pair of formats that is not in ``ALLOWED_TRANSLATIONS``.

    Raises:
        PinTranslationRefusedError: the target is weaker.
    """
    if target_format not in ALLOWED_TRANSLATIONS[source_format]:
        raise PinTranslationRefusedError(f"no PIN goes from {source_format.value} to {target_format.value}")


def cipher_of(format: PinBlockFormat) -> Cipher:  # noqa: A002
    """Cipher of the keys that a format goes with."""
    return _LAYOUTS[format].cipher


def _require_key(key: Key, layout_name: PinBlockFormat) -> None:
    key.require(KeyUsage.PIN_ENCRYPTION)
    cipher = _LAYOUTS[layout_name].cipher
    if key.cipher is not cipher:
        raise KeyUsageError(f"format {layout_name.value} needs a {cipher.value} key")


def _invalid() -> PinBlockInvalidError:
    return PinBlockInvalidError("the PIN block does not decode")


def _malformed_pan() -> ValueError:
    return ValueError("a card number has 13 to 19 digits, 12 to 19 for format 4")
