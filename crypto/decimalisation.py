"""Decimal digits read off an encryption, as PIN and card verification values do it.

Must never be mistaken for a uniform choice of digits: letters fill in only where decimals run out.
"""

_HEX_LETTERS = b"abcdef"
_DECIMAL_DIGITS = b"0123456789"
_LETTERS_AS_DECIMALS = bytes.maketrans(_HEX_LETTERS, b"012345")


def scan_decimals(encrypted: bytes, *, count: int) -> str:
    """The first decimal digits of the hex text; where there are fewer, its letters follow as A = 0 to F = 5.

    Args:
        encrypted: one block.
        count: digits wanted, at most two for each byte.
    Source: Visa PIN verification value and card verification value: two passes over the result.
    """
    text = encrypted.hex().encode()
    digits = text.translate(None, _HEX_LETTERS)
    if len(digits) < count:
        digits += text.translate(_LETTERS_AS_DECIMALS, _DECIMAL_DIGITS)
    return digits[:count].decode()
