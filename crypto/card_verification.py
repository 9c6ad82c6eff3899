"""Card verification values: three digits by which an issuer recognises its stripe, chip or printed card.

CVV, iCVV and CVV2 are one computation; the service code tells them apart, so that what is read off one of the
three cannot stand for another. 3DES only: the networks define no other, and neither do we.

Must never answer a verification with a bool.
"""

import enum
import hmac

from crypto.decimalisation import scan_decimals
from crypto.errors import CardVerificationInvalidError, KeyUsageError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import RetailMacContext

VALUE_SIZE = 3
_DATA_DIGITS = 32


class CardVerificationKind(enum.Enum):
    """Where the value stands: magnetic stripe (CVV), chip (ICVV), printed (CVV2)."""

    CVV = "CVV"
    ICVV = "ICVV"
    CVV2 = "CVV2"

    # Enum hashes in Python, 0.2 µs per look-up; members are singletons anyway.
    __hash__ = object.__hash__


_FIXED_SERVICE_CODES = {CardVerificationKind.ICVV: "999", CardVerificationKind.CVV2: "000"}


def generate_cvv(
    cvk: Key, *, kind: CardVerificationKind, pan: str, expiry: str, service_code: str = ""
) -> str:
    """Card verification value, three digits.

    Args:
        cvk: 3DES key, usage ``CARD_VERIFICATION``.
        kind: which value.
        pan: 12 to 19 digits.
        expiry: four digits in the order the issuer signs them: YYMM on stripe and chip, as on track 2; YYMM or
            MMYY for CVV2, where issuers differ. Nothing is turned round here.
        service_code: of the stripe for CVV, three digits, neither 000 nor 999; empty for the other kinds.
    Raises:
        KeyUsageError: the key is for something else, or not 3DES.
        ValueError: malformed PAN, expiry or service code.
    Source: Visa CVV and Mastercard CVC; E(K1) of 16 digits, xor the next 16, E under the whole key is the
        retail MAC (ISO/IEC 9797-1:2011, 7.4) of the 16 bytes without padding.
    """
    cvk.require(KeyUsage.CARD_VERIFICATION)
    if cvk.cipher is not Cipher.TDES:
        raise KeyUsageError("card verification needs a 3DES key")
    data = card_verification_data(kind=kind, pan=pan, expiry=expiry, service_code=service_code)
    return card_verification_value(RetailMacContext(cvk.value).mac(data))


def verify_cvv(
    cvk: Key, *, kind: CardVerificationKind, pan: str, expiry: str, service_code: str = "", value: str
) -> None:
    """Checks a card verification value.

    Args:
        cvk: 3DES key, usage ``CARD_VERIFICATION``.
        kind: which value.
        pan: 12 to 19 digits.
        expiry: four digits, as ``generate_cvv`` had them.
        service_code: as ``generate_cvv`` had it.
        value: as it came.
    Raises:
        CardVerificationInvalidError: not the card's value.
        KeyUsageError: the key is for something else, or not 3DES.
        ValueError: malformed PAN, expiry or service code.
    Source: as ``generate_cvv``.
    """
    expected = generate_cvv(cvk, kind=kind, pan=pan, expiry=expiry, service_code=service_code)
    # As bytes, because text that is not ASCII cannot be compared.
    if not hmac.compare_digest(expected.encode(), value.encode()):
        raise CardVerificationInvalidError("the card verification value is not the card's")


def card_verification_data(
    *, kind: CardVerificationKind, pan: str, expiry: str, service_code: str = ""
) -> bytes:
    """The 16 bytes whose retail MAC, unpadded, holds the value: for a living context or a hardware token.

    Raises:
        ValueError: malformed PAN, expiry or service code.
    Source: as ``generate_cvv``, with the same arguments.
    """
    fixed = _FIXED_SERVICE_CODES.get(kind)
    if fixed is None:
        if len(service_code) != 3 or service_code in _FIXED_SERVICE_CODES.values():
            raise ValueError("a stripe's service code has three digits, neither 000 nor 999")
    elif service_code:
        raise ValueError("the service code of this kind is fixed")
    else:
        service_code = fixed
    digits = pan + expiry + service_code
    if not (12 <= len(pan) <= 19 and len(expiry) == 4 and digits.isdigit() and digits.isascii()):
        raise ValueError("a card number has 12 to 19 digits, an expiry four, a service code three")
    return bytes.fromhex(digits.ljust(_DATA_DIGITS, "0"))


def card_verification_value(mac: bytes) -> str:
    """The three digits in the retail MAC of ``card_verification_data``.

    Args:
        mac: 8 bytes.
    Source: as ``generate_cvv``.
    """
    return scan_decimals(mac, count=VALUE_SIZE)
