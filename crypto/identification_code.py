"""The card identification code 卡识别码 (AAZ501): which chip, of which issuer, with a check value.

16 bytes as 32 hex digits: issuing region 3 (BCD) ‖ RID 5 ‖ chip serial 4 ‖ check 4. The check value
``CMAC-SM4(K, first 12 bytes)[:4]`` is a profile of this project; the national computation is not public, so
codes of other issuers must never be refused for it alone.
"""

from crypto.errors import IdentificationCodeInvalidError, MacInvalidError
from crypto.keys import Key, KeyUsage
from crypto.macs import cmac_tag, verify_cmac

SOCIAL_SECURITY_RID = bytes.fromhex("D156000005")
IDENTIFICATION_CODE_CHARACTERS = 32
_CHECK_SIZE = 4
_HEX_DIGITS = frozenset("0123456789ABCDEFabcdef")


class IdentificationCodes:
    """Makes and checks identification codes under one key, which it never shows."""

    __slots__ = ("_key",)

    def __init__(self, key: Key) -> None:
        key.require(KeyUsage.IDENTIFICATION_CODE)
        self._key = key

    def generate(self, *, issuing_region: str, chip_serial: bytes) -> str:
        """Makes a code: see ``generate_identification_code``."""
        return generate_identification_code(self._key, issuing_region=issuing_region, chip_serial=chip_serial)

    def verify(self, code: str) -> None:
        """Checks a code: see ``verify_identification_code``."""
        verify_identification_code(self._key, code)


def generate_identification_code(key: Key, *, issuing_region: str, chip_serial: bytes) -> str:
    """Makes an identification code, 32 upper-case hex digits.

    Args:
        key: usage ``IDENTIFICATION_CODE``.
        issuing_region: six digits.
        chip_serial: 4 bytes.
    Raises:
        KeyUsageError: not an identification-code key.
        ValueError: malformed region or serial.
    Source: layout inferred from published samples; check value: profile of this project.
    """
    key.require(KeyUsage.IDENTIFICATION_CODE)
    is_region = len(issuing_region) == 6 and issuing_region.isdigit() and issuing_region.isascii()
    if not is_region or len(chip_serial) != 4:
        raise ValueError("an issuing region has six digits, a chip serial 4 bytes")
    body = bytes.fromhex(issuing_region) + SOCIAL_SECURITY_RID + chip_serial
    return (body + cmac_tag(key, body, size=_CHECK_SIZE)).hex().upper()


def verify_identification_code(key: Key, code: str) -> None:
    """Checks an identification code's form and check value.

    Args:
        key: usage ``IDENTIFICATION_CODE``.
        code: 32 hex digits, either case.
    Raises:
        IdentificationCodeInvalidError: malformed, or the check value is wrong.
        KeyUsageError: not an identification-code key.
    Source: layout inferred from published samples; check value: profile of this project.
    """
    key.require(KeyUsage.IDENTIFICATION_CODE)
    if len(code) != IDENTIFICATION_CODE_CHARACTERS or not _HEX_DIGITS.issuperset(code):
        raise IdentificationCodeInvalidError("an identification code has 32 hex digits")
    raw = bytes.fromhex(code)
    try:
        verify_cmac(key, raw[:12], mac=raw[12:], size=_CHECK_SIZE)
    except MacInvalidError:
        raise IdentificationCodeInvalidError("the identification code's check value is wrong") from None
