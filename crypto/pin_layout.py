"""The fields of PIN block formats as hex text, and whole batches of them opened and sealed in ECB.

A PIN field is control nibble, length nibble, PIN digits and fill; it is xored with a PAN field. One decoder
reads every format from its ``Layout``, strictly, and one encoder writes it; what is ours in them is speed: one
block operation, one xor and one hex conversion serve a batch.

Must never build a ``Pin``, know a key, or say why a block was refused.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

from crypto.keys import Cipher

PIN_LENGTH_MIN, PIN_LENGTH_MAX = 4, 12
PAN_LENGTH_MIN, PAN_LENGTH_MAX = 13, 19
PAN_LENGTH_MIN_4 = 12
# Nibbles of format 4 that say A behind a PIN of four digits; behind them the field is random.
_FILL_SIZE_4 = 10
_LETTERS = bytes(b"abcdef"[value % 6] for value in range(252)) + bytes(4)
_UNEVEN = bytes(range(252, 256))

# Encrypts or decrypts whole blocks in ECB under one key: a living context, or a hardware token.
BlockOperation = Callable[[bytes], bytes]


class Layout(NamedTuple):
    """What tells one format from another.

    Args:
        cipher: the only one it is used with.
        size: block size, bytes.
        control: first nibble.
        lengths: PIN length by the first two nibbles.
        fill_alphabet: nibbles that may stand between the PIN and ``fill_end``.
        fill_end: nibble from which on anything may stand; the field's end but in format 4.
        draw: gives, for ``count`` fields, the ``size`` nibbles that follow a PIN of four digits; a longer PIN
            drops the first of them.
        pan_field: hex text of a PAN's field, None when the PAN is malformed.
        encrypts_twice: the PIN field is encrypted by itself before the PAN field goes in.
    """

    cipher: Cipher
    size: int
    control: str
    lengths: dict[str, int]
    fill_alphabet: str
    fill_end: int
    draw: Callable[[int, int], list[str]]
    pan_field: Callable[[str], str | None]
    encrypts_twice: bool = False


def open_blocks(
    decrypt_ecb: BlockOperation, items: Sequence[tuple[bytes, str]], layout: Layout
) -> list[str | None]:
    """PIN digits of each encrypted block and PAN, None where it does not decode.

    An item of wrong size or with a malformed PAN is left out of the block operations.
    """
    digits: list[str | None] = [None] * len(items)
    size, pan_field = layout.size, layout.pan_field
    whole, blocks, fields = [], [], []
    for index, (block, pan) in enumerate(items):
        field = pan_field(pan)
        if field is not None and len(block) == size:
            whole.append(index)
            blocks.append(block)
            fields.append(field)
    if not whole:
        return digits
    pin_fields = _xored(decrypt_ecb(b"".join(blocks)), fields)
    if layout.encrypts_twice:
        pin_fields = decrypt_ecb(pin_fields)
    for index, pin in zip(whole, read_pin_fields(pin_fields, layout), strict=True):
        digits[index] = pin
    return digits


def seal_blocks(
    encrypt_ecb: BlockOperation,
    items: Sequence[tuple[str | None, str]],
    layout: Layout,
    *,
    fills: Sequence[str] | None = None,
) -> list[bytes | None]:
    """Encrypted block of each PIN's digits and PAN, None where there are no digits or the PAN is malformed.

    Args:
        encrypt_ecb: the block operation.
        items: PIN digits, valid or None, and PAN of each.
        layout: the format.
        fills: for known answers only: what ``draw`` would give.
    """
    sealed: list[bytes | None] = [None] * len(items)
    pan_field = layout.pan_field
    whole, pins, fields = [], [], []
    for index, (digits, pan) in enumerate(items):
        field = pan_field(pan)
        if digits is not None and field is not None:
            whole.append(index)
            pins.append(digits)
            fields.append(field)
    if not whole:
        return sealed
    pin_fields = write_pin_fields(pins, layout, fills=fills)
    if layout.encrypts_twice:
        pin_fields = encrypt_ecb(pin_fields)
    blocks = encrypt_ecb(_xored(pin_fields, fields))
    size = layout.size
    for at, index in enumerate(whole):
        sealed[index] = blocks[at * size : at * size + size]
    return sealed


def read_pin_fields(pin_fields: bytes, layout: Layout) -> list[str | None]:
    """PIN digits of clear PIN fields laid end to end, None for each that is not exactly as its format says."""
    text = pin_fields.hex()
    lengths, alphabet, fill_end = layout.lengths, layout.fill_alphabet, layout.fill_end
    found: list[str | None] = []
    for start in range(0, len(text), 2 * layout.size):
        length = lengths.get(text[start : start + 2])
        if length is None:
            found.append(None)
            continue
        end = start + 2 + length
        digits = text[start + 2 : end]
        # Stripping leaves something where any nibble of the fill is not of the alphabet.
        is_exact = digits.isdigit() and not text[end : start + fill_end].strip(alphabet)
        found.append(digits if is_exact else None)
    return found


def write_pin_fields(pins: Sequence[str], layout: Layout, *, fills: Sequence[str] | None = None) -> bytes:
    """Clear PIN fields of valid digits, laid end to end; ``fills`` for known answers only."""
    control = layout.control
    if fills is None:
        fills = layout.draw(len(pins), 2 * layout.size - 2 - PIN_LENGTH_MIN)
    return bytes.fromhex(
        "".join(
            [
                f"{control}{len(digits):x}{digits}{fill[len(digits) - PIN_LENGTH_MIN :]}"
                for digits, fill in zip(pins, fills, strict=True)
            ]
        )
    )


def xor_pan_field(pin_field: bytes, pan_field: str) -> bytes:
    """The one step that binds, and is its own inverse."""
    return _xored(pin_field, [pan_field])


def _xored(blocks: bytes, fields: Sequence[str]) -> bytes:
    return (int.from_bytes(blocks) ^ int("".join(fields), 16)).to_bytes(len(blocks))


def _bound_field(zeros: int) -> Callable[[str], str | None]:
    """The twelve rightmost digits without the check digit, behind zeros."""
    prefix = "0" * zeros

    def pan_field(pan: str) -> str | None:
        if pan.isdigit() and pan.isascii() and PAN_LENGTH_MIN <= len(pan) <= PAN_LENGTH_MAX:
            return prefix + pan[-13:-1]
        return None

    return pan_field


def _field_of_all_digits(pan: str) -> str | None:
    if pan.isdigit() and pan.isascii() and PAN_LENGTH_MIN_4 <= len(pan) <= PAN_LENGTH_MAX:
        return f"{len(pan) - PAN_LENGTH_MIN_4}{pan}".ljust(32, "0")
    return None


def _unbound_field(pan: str) -> str:
    return "0" * 16


def _draw_f(count: int, size: int) -> list[str]:
    return ["f" * size] * count


def _draw_any(count: int, size: int) -> list[str]:
    return _cut(secrets.token_hex(count * size // 2), size)


def _draw_letters(count: int, size: int) -> list[str]:
    # 252 byte values fall evenly on six letters; the other four are thrown away.
    drawn = b""
    while len(drawn) < count * size:
        drawn += secrets.token_bytes(count * size + 16).translate(_LETTERS, _UNEVEN)
    return _cut(drawn[: count * size].decode(), size)


def _draw_a_then_any(count: int, size: int) -> list[str]:
    return ["a" * _FILL_SIZE_4 + drawn for drawn in _draw_any(count, size - _FILL_SIZE_4)]


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _lengths(control: str) -> dict[str, int]:
    return {f"{control}{length:x}": length for length in range(PIN_LENGTH_MIN, PIN_LENGTH_MAX + 1)}


ISO_0 = Layout(Cipher.TDES, 8, "0", _lengths("0"), "f", 16, _draw_f, _bound_field(4))
ISO_1 = Layout(Cipher.TDES, 8, "1", _lengths("1"), "0123456789abcdef", 16, _draw_any, _unbound_field)
ISO_3 = Layout(Cipher.TDES, 8, "3", _lengths("3"), "abcdef", 16, _draw_letters, _bound_field(4))
ISO_4 = Layout(
    Cipher.AES, 16, "4", _lengths("4"), "a", 16, _draw_a_then_any, _field_of_all_digits, encrypts_twice=True
)
SM4_0 = Layout(Cipher.SM4, 16, "0", _lengths("0"), "f", 32, _draw_f, _bound_field(20))
