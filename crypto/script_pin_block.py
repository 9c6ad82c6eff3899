"""How a new PIN is written before an issuer script enciphers it: the VIS block and ISO format 2.

Neither is bound to a PAN, as the blocks of ``crypto.pin_block`` are: the script's session key binds it to the card.
Must never leave this package in clear: ``crypto.issuer_script`` enciphers it at once.
"""

import enum

from crypto.errors import PinBlockInvalidError
from crypto.keys import Key, KeyUsage
from crypto.pin_block import Pin

PIN_BLOCK_SIZE = 8
_REFUSAL = "the PIN block does not decode"


class ScriptPinBlock(enum.Enum):
    """How a new PIN is written before it is enciphered; 8 bytes each."""

    # Length, digits, fill, xored with four bytes of the card's cryptogram key (and the current PIN).
    VIS = "VIS"
    # Format 2: control and length, digits, fill.
    ISO_2 = "ISO_2"


_CONTROLS = {ScriptPinBlock.VIS: "0", ScriptPinBlock.ISO_2: "2"}


def write_script_pin_block(
    pin: Pin, *, pin_block: ScriptPinBlock, udk_ac: Key | None = None, current_pin: Pin | None = None
) -> bytes:
    """The clear PIN block of a PIN change, 8 bytes.

    Args:
        pin: the new PIN.
        pin_block: how it is written.
        udk_ac: card key, usage ``UDK_AC``; VIS alone needs it.
        current_pin: of VIS alone, what the card holds now.
    Raises:
        KeyUsageError: a key for something else.
        ValueError: ``udk_ac`` or ``current_pin`` does not go with ``pin_block``.
    Source: VIS and PBOC 3.0 (JR/T 0025.5) PIN CHANGE/UNBLOCK; ISO 9564-1:2017, format 2.
    """
    field = bytes.fromhex(
        f"{_CONTROLS[pin_block]}{len(pin.digits):X}{pin.digits}".ljust(2 * PIN_BLOCK_SIZE, "F")
    )
    return _xor_mask(field, pin_block=pin_block, udk_ac=udk_ac, current_pin=current_pin)


def read_script_pin_block(
    block: bytes, *, pin_block: ScriptPinBlock, udk_ac: Key | None = None, current_pin: Pin | None = None
) -> Pin:
    """The card's side: the new PIN of a clear PIN block.

    Args:
        block: 8 bytes.
        pin_block, udk_ac, current_pin: as ``write_script_pin_block``.
    Raises:
        KeyUsageError, ValueError: as ``write_script_pin_block``.
        PinBlockInvalidError: not such a block. Another current PIN is always refused when its first two digits
            differ; where only later ones do, it may come to another PIN instead.
    Source: see ``write_script_pin_block``.
    """
    if len(block) != PIN_BLOCK_SIZE:
        raise PinBlockInvalidError(_REFUSAL)
    field = _xor_mask(block, pin_block=pin_block, udk_ac=udk_ac, current_pin=current_pin).hex().upper()
    length = int(field[1], 16)
    digits, fill = field[2 : 2 + length], field[2 + length :]
    if field[0] != _CONTROLS[pin_block] or fill.strip("F"):
        raise PinBlockInvalidError(_REFUSAL)
    try:
        return Pin(digits)
    except ValueError:
        raise PinBlockInvalidError(_REFUSAL) from None


def _xor_mask(
    block: bytes, *, pin_block: ScriptPinBlock, udk_ac: Key | None, current_pin: Pin | None
) -> bytes:
    """Xors what ties a VIS block to its card, and to its current PIN; its own inverse."""
    if pin_block is ScriptPinBlock.ISO_2:
        if udk_ac is not None or current_pin is not None:
            raise ValueError("format 2 takes neither a card key nor a current PIN")
        return block
    if udk_ac is None:
        raise ValueError("a VIS PIN block needs the card's cryptogram key")
    udk_ac.require(KeyUsage.UDK_AC)
    # Right half of the left 3DES key, parity bits as the card has them; the same four bytes of an SM4 or AES key.
    mask = int.from_bytes(udk_ac.value[4:8])
    if current_pin is not None:
        mask ^= int(current_pin.digits.ljust(2 * PIN_BLOCK_SIZE, "0"), 16)
    return (int.from_bytes(block) ^ mask).to_bytes(PIN_BLOCK_SIZE)
