"""What a PIN is verified against when the PIN itself is kept nowhere: the Visa PVV, and the IBM 3624 offset.

Both encrypt something of the card under a PIN verification key and read decimal digits off the result. 3DES is
as the networks do it. SM4 and AES are a profile of this project: the same 8 bytes, followed by 8 zero bytes,
make the block, and digits are read off 16 bytes instead of 8.

Must never answer a verification with a bool, and never issue a PIN that is guessed first.
"""

import hmac
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from crypto.blocks import block_size, encrypt_ecb
from crypto.decimalisation import scan_decimals
from crypto.errors import PinInvalidError
from crypto.keys import Key, KeyUsage
from crypto.pin_block import Pin
from crypto.pin_layout import PAN_LENGTH_MAX, PIN_LENGTH_MAX, PIN_LENGTH_MIN, BlockOperation

PVV_SIZE = 4
PVKI_MAX = 9
DISTINCT_DIGITS_MIN, SAME_DIGIT_MAX = 8, 4
_PAN_LENGTH_MIN = 12
_VALIDATION_SIZE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Ibm3624Layout:
    """Which digits of the PAN are validated, and how hex digits become decimal.

    Args:
        decimalisation: 16 decimal digits, one for each hex digit; a table that favours few digits is refused,
            because it makes PINs guessable.
        pan_start: first PAN digit taken, from 0.
        pan_length: PAN digits taken, 1 to 16.
        pad: hex digit that fills what is taken to 16.
    Raises:
        ValueError: out of these bounds, fewer than 8 distinct digits, or one digit more than 4 times.
    Source: IBM 3624 PIN generation algorithm; the bounds of the table as hardware security modules set them.
    """

    decimalisation: str
    pan_start: int = 0
    pan_length: int = _VALIDATION_SIZE
    pad: str = "F"

    def __post_init__(self) -> None:
        table = self.decimalisation
        if not (len(table) == 16 and table.isdigit() and table.isascii()):
            raise ValueError("a decimalisation table has 16 decimal digits")
        if len(set(table)) < DISTINCT_DIGITS_MIN or max(map(table.count, table)) > SAME_DIGIT_MAX:
            raise ValueError("the decimalisation table favours few digits")
        is_pad = len(self.pad) == 1 and self.pad in "0123456789ABCDEFabcdef"
        if not (is_pad and self.pan_start >= 0 and 1 <= self.pan_length <= _VALIDATION_SIZE):
            raise ValueError("validation data are 1 to 16 digits of the card number and a hex digit as pad")

    def validation_data(self, pan: str) -> bytes:
        """8 bytes that are encrypted for a card.

        Args:
            pan: 12 to 19 digits, as many as the layout takes.
        Raises:
            ValueError: malformed PAN, or one too short for the layout.
        """
        if not _is_pan(pan):
            raise _malformed_pan()
        taken = pan[self.pan_start : self.pan_start + self.pan_length]
        if len(taken) != self.pan_length:
            raise ValueError("the card number is too short for the validation data")
        return bytes.fromhex(taken.ljust(_VALIDATION_SIZE, self.pad))

    def decimal_digits(self, encrypted: bytes) -> str:
        """The first 12 hex digits as decimals."""
        text = encrypted.hex()[:PIN_LENGTH_MAX]
        return text.translate(str.maketrans("0123456789abcdef", self.decimalisation))


def issue_random_pin(*, length: int) -> Pin:
    """Draws a PIN; one of equal digits or of a run up or down (4567, 2109) is drawn again.

    Args:
        length: 4 to 12 digits.
    Raises:
        ValueError: out of these bounds.
    Source: ISO 9564-1:2017, 8.2 (random PIN); the refusal of trivial ones is a rule of this project.
    """
    _require_pin_length(length)
    while True:
        digits = f"{secrets.randbelow(10**length):0{length}d}"
        if not _is_trivial(digits):
            return Pin(digits)


def generate_pvv(pvk: Key, pin: Pin, *, pan: str, pvki: int) -> str:
    """Visa PIN verification value: four digits over the PIN's first four; later ones are not verified.

    Args:
        pvk: usage ``PIN_VERIFICATION_PVV``.
        pin: the PIN.
        pan: 12 to 19 digits, of which the 11 before the check digit enter.
        pvki: index of the PVK, one digit.
    Raises:
        KeyUsageError: the key is for something else.
        ValueError: malformed PAN or index.
    Source: Visa PIN verification value; SM4 and AES are a profile of this project.
    """
    pvk.require(KeyUsage.PIN_VERIFICATION_PVV)
    [pvv] = generate_pvvs(partial(encrypt_ecb, pvk), [(pin, pan)], size=block_size(pvk.cipher), pvki=pvki)
    if isinstance(pvv, ValueError):
        raise pvv
    return pvv


def verify_pvv(pvk: Key, pin: Pin, *, pan: str, pvki: int, pvv: str) -> None:
    """Checks a PIN against its PVV.

    Args:
        pvk: usage ``PIN_VERIFICATION_PVV``.
        pin: the PIN as it was entered.
        pan: 12 to 19 digits.
        pvki: index of the PVK, one digit.
        pvv: four digits as kept.
    Raises:
        KeyUsageError: the key is for something else.
        PinInvalidError: not the card's PIN.
        ValueError: malformed PAN, index or PVV.
    Source: as ``generate_pvv``.
    """
    if not (len(pvv) == PVV_SIZE and _is_decimal(pvv)):
        raise ValueError("a PIN verification value has four digits")
    if not hmac.compare_digest(generate_pvv(pvk, pin, pan=pan, pvki=pvki), pvv):
        raise PinInvalidError("the PIN does not fit its reference")


def generate_pvvs(
    encrypt: BlockOperation, items: Sequence[tuple[Pin, str]], *, size: int, pvki: int
) -> list[str | ValueError]:
    """PVVs of many PINs under one key in one block operation.

    Args:
        encrypt: ECB of whole blocks under a PIN verification key; the caller answers for the key.
        items: PIN and PAN of each.
        size: the key's block size, bytes.
        pvki: index of the key, one digit.
    Returns:
        In the order of ``items``: the PVV, or ``ValueError`` where the PAN is malformed.
    Raises:
        ValueError: malformed index or block size.
    Source: as ``generate_pvv``.
    """
    if not 0 <= pvki <= PVKI_MAX:
        raise ValueError("the index of a PIN verification key is one digit")
    if size not in (8, 16):
        raise ValueError("a block has 8 or 16 bytes")
    zeros = "0" * (2 * size - 16)
    parameters = {
        index: f"{pan[-12:-1]}{pvki}{pin.digits[:4]}{zeros}"
        for index, (pin, pan) in enumerate(items)
        if _is_pan(pan)
    }
    encrypted = encrypt(bytes.fromhex("".join(parameters.values()))) if parameters else b""
    pvvs = {
        index: scan_decimals(encrypted[start : start + size], count=PVV_SIZE)
        for index, start in zip(parameters, range(0, len(encrypted), size), strict=True)
    }
    return [pvvs[index] if index in pvvs else _malformed_pan() for index in range(len(items))]


def generate_natural_pin(pvk: Key, *, pan: str, length: int, layout: Ibm3624Layout) -> Pin:
    """IBM 3624 natural PIN: the one whose offset is zero.

    Args:
        pvk: usage ``PIN_VERIFICATION_IBM3624``.
        pan: 12 to 19 digits, as many as the layout takes.
        length: 4 to 12 digits.
        layout: validation data and decimalisation.
    Raises:
        KeyUsageError: the key is for something else.
        ValueError: malformed PAN, or length out of bounds.
    Source: IBM 3624 PIN generation algorithm; SM4 and AES are a profile of this project.
    """
    _require_pin_length(length)
    return Pin(_natural_digits(pvk, pan, layout)[:length])


def generate_pin_offset(pvk: Key, pin: Pin, *, pan: str, layout: Ibm3624Layout) -> str:
    """IBM 3624 offset: PIN minus natural PIN, digit by digit modulo 10; as long as the PIN.

    Args:
        pvk: usage ``PIN_VERIFICATION_IBM3624``.
        pin: the PIN.
        pan: 12 to 19 digits, as many as the layout takes.
        layout: validation data and decimalisation.
    Raises:
        KeyUsageError: the key is for something else.
        ValueError: malformed PAN.
    Source: IBM 3624 PIN offset algorithm; SM4 and AES are a profile of this project.
    """
    return _offset(pin, _natural_digits(pvk, pan, layout))


def generate_pin_offsets(
    encrypt: BlockOperation, items: Sequence[tuple[Pin, str]], *, size: int, layout: Ibm3624Layout
) -> list[str | ValueError]:
    """Offsets of many PINs under one key in one block operation.

    Args:
        encrypt: ECB of whole blocks under a PIN verification key; the caller answers for the key.
        items: PIN and PAN of each.
        size: the key's block size, bytes.
        layout: validation data and decimalisation.
    Returns:
        In the order of ``items``: the offset, or ``ValueError`` where the PAN does not go with the layout.
    Source: as ``generate_pin_offset``.
    """
    blocks: dict[int, bytes] = {}
    offsets: dict[int, str | ValueError] = {}
    for index, (_, pan) in enumerate(items):
        try:
            blocks[index] = layout.validation_data(pan).ljust(size, b"\0")
        except ValueError as error:
            offsets[index] = error
    encrypted = encrypt(b"".join(blocks.values())) if blocks else b""
    for index, start in zip(blocks, range(0, len(encrypted), size), strict=True):
        natural = layout.decimal_digits(encrypted[start : start + size])
        offsets[index] = _offset(items[index][0], natural)
    return [offsets[index] for index in range(len(items))]


def verify_pin_offset(pvk: Key, pin: Pin, *, pan: str, offset: str, layout: Ibm3624Layout) -> None:
    """Checks a PIN, all of its digits, against its offset.

    Args:
        pvk: usage ``PIN_VERIFICATION_IBM3624``.
        pin: the PIN as it was entered.
        pan: 12 to 19 digits, as many as the layout takes.
        offset: 4 to 12 digits as kept: the length of the right PIN.
        layout: validation data and decimalisation.
    Raises:
        KeyUsageError: the key is for something else.
        PinInvalidError: not the card's PIN.
        ValueError: malformed PAN or offset.
    Source: as ``generate_pin_offset``.
    """
    _require_pin_length(len(offset))
    if not _is_decimal(offset):
        raise ValueError("an offset has decimal digits")
    if not hmac.compare_digest(generate_pin_offset(pvk, pin, pan=pan, layout=layout), offset):
        raise PinInvalidError("the PIN does not fit its reference")


def _natural_digits(pvk: Key, pan: str, layout: Ibm3624Layout) -> str:
    pvk.require(KeyUsage.PIN_VERIFICATION_IBM3624)
    block = layout.validation_data(pan)
    return layout.decimal_digits(encrypt_ecb(pvk, block + bytes(block_size(pvk.cipher) - len(block))))


def _offset(pin: Pin, natural: str) -> str:
    return "".join(str((int(ours) - int(its)) % 10) for ours, its in zip(pin.digits, natural, strict=False))


def _is_trivial(digits: str) -> bool:
    steps = {(int(after) - int(before)) % 10 for before, after in itertools.pairwise(digits)}
    return steps in ({0}, {1}, {9})


def _is_decimal(text: str) -> bool:
    return text.isdigit() and text.isascii()


def _is_pan(pan: str) -> bool:
    return _PAN_LENGTH_MIN <= len(pan) <= PAN_LENGTH_MAX and _is_decimal(pan)


def _malformed_pan() -> ValueError:
    return ValueError("a card number has 12 to 19 digits")


def _require_pin_length(length: int) -> None:
    if not PIN_LENGTH_MIN <= length <= PIN_LENGTH_MAX:
        raise ValueError(f"a PIN has {PIN_LENGTH_MIN} to {PIN_LENGTH_MAX} digits")
