"""How a key becomes another key: issuer to card, nation to province to city to card, card to session.

Every formula here is one ECB encryption of 16 bytes, a factor and its complement (or two variants of it)
under the upper key; so whole batches of card keys come out of one call under the master key, also on a
hardware module. The ``*_factor`` functions return those 16 bytes; the ``derive_*`` functions apply them to
typed keys.

Must never derive from a key of another usage. 3DES keys of the PBOC formulas keep their parity bits as
computed; the EMV ones are set to odd parity, as EMV prints them. DES ignores the difference.
"""

import enum
import hashlib
from collections.abc import Callable

from crypto.blocks import encrypt_ecb
from crypto.errors import KeyUsageError
from crypto.keys import Cipher, Key, KeyUsage, UdkOption

_COMPLEMENT = bytes(255 - value for value in range(256))
_ODD_PARITY = bytes((value & 0xFE) | ((value >> 1).bit_count() + 1) % 2 for value in range(256))
_DECIMALISE = str.maketrans("abcdef", "012345")
_CARD_KEY_OF = {
    KeyUsage.IMK_AC: KeyUsage.UDK_AC,
    KeyUsage.IMK_SMI: KeyUsage.UDK_SMI,
    KeyUsage.IMK_SMC: KeyUsage.UDK_SMC,
}
_SESSION_KEY_OF = {
    KeyUsage.UDK_AC: KeyUsage.SESSION_AC,
    KeyUsage.UDK_SMI: KeyUsage.SESSION_SMI,
    KeyUsage.UDK_SMC: KeyUsage.SESSION_SMC,
}
_NEXT_LEVEL = {
    KeyUsage.SS_AUTHENTICATION_NATIONAL: KeyUsage.SS_AUTHENTICATION_PROVINCE,
    KeyUsage.SS_AUTHENTICATION_PROVINCE: KeyUsage.SS_AUTHENTICATION_CITY,
}


class SessionMethod(enum.Enum):
    """How a card key becomes a session key."""

    PBOC = "PBOC"
    EMV_COMMON = "EMV_COMMON"


def complemented(factor: bytes) -> bytes:
    """``factor ‖ ~factor``: what is encrypted to diversify a key.

    Args:
        factor: 8 bytes.
    Raises:
        ValueError: not 8 bytes.
    """
    if len(factor) != 8:
        raise ValueError("a diversification factor has 8 bytes")
    return factor + factor.translate(_COMPLEMENT)


def odd_parity(value: bytes) -> bytes:
    """Sets the lowest bit of each byte so that its bits count odd (FIPS 46-3, DES key parity)."""
    return value.translate(_ODD_PARITY)


def diversify(key: Key, factor: bytes, *, usage: KeyUsage) -> Key:
    """Derives a lower key.

    3DES: E(K, F) ‖ E(K, ~F); SM4 and AES: E(K, F ‖ ~F). Under ECB these are one formula.

    Args:
        key: upper key.
        factor: 8 bytes.
        usage: what the lower key is for.
    Raises:
        ValueError: the factor is not 8 bytes, or the key is no block-cipher key.
    Source: PBOC 3.0 (JR/T 0025.7) 3DES and SM4 sub-key derivation; AES is a profile of this project.
    """
    return Key(key.cipher, usage, encrypt_ecb(key, complemented(factor)))


def region_factor(region: str) -> bytes:
    """Level factor of a region: 3 bytes BCD ‖ zeros, 8 bytes.

    Args:
        region: six digits of GB/T 2260.
    Raises:
        ValueError: not six digits.
    Source: profile of this project (the level factors are not public).
    """
    _require_region(region)
    return bytes.fromhex(region) + bytes(5)


def city_region(region: str) -> str:
    """The city-level region of a county: first four digits and 00.

    Args:
        region: six digits of GB/T 2260.
    Raises:
        ValueError: not six digits.
    """
    _require_region(region)
    return region[:4] + "00"


def ss_card_factor(atr_historical_bytes: bytes) -> bytes:
    """Card factor of the social-security application: 6 last bytes of the ATR's identification part ‖ 0000.

    Args:
        atr_historical_bytes: 6 to 15 bytes; the identification part is its tail.
    Raises:
        ValueError: out of these bounds.
    Source: read in public terminal code; ISO/IEC 7816-3 8.2.5 bounds the historical bytes.
    """
    if not 6 <= len(atr_historical_bytes) <= 15:
        raise ValueError("an ATR's identification part has 6 to 15 bytes here")
    return atr_historical_bytes[-6:] + b"\x00\x00"


def derive_level_key(key: Key, *, region: str) -> Key:
    """One step down the social-security hierarchy: national → province or province → city.

    Args:
        key: national or province key.
        region: six digits: the province (``360000``) or the city (``360100``).
    Raises:
        KeyUsageError: the key is not a national or province key.
        ValueError: malformed region.
    Source: profile of this project over the derivation of ``diversify``.
    """
    key.require(*_NEXT_LEVEL)
    return diversify(key, region_factor(region), usage=_NEXT_LEVEL[key.usage])


def derive_ss_card_key(city_key: Key, *, atr_historical_bytes: bytes) -> Key:
    """City → card: the key that answers INTERNAL AUTHENTICATE.

    Raises:
        KeyUsageError: the key is not a city key.
        ValueError: malformed historical bytes.
    Source: see ``ss_card_factor``.
    """
    city_key.require(KeyUsage.SS_AUTHENTICATION_CITY)
    factor = ss_card_factor(atr_historical_bytes)
    return diversify(city_key, factor, usage=KeyUsage.SS_AUTHENTICATION_CARD)


def udk_factor_a(pan: str, psn: str) -> bytes:
    """Factor ‖ complement of option A: rightmost 16 digits of PAN ‖ PSN, BCD, left-padded with zeros.

    Args:
        pan: 12 to 19 decimal digits.
        psn: two decimal digits, "00" when the card has none.
    Raises:
        ValueError: not such digits.
    Source: EMV 4.3 Book 2, A1.4.1.
    """
    digits = pan + psn
    # One test for both strings: this runs once per card operation.
    if not (digits.isdigit() and digits.isascii() and 12 <= len(pan) <= 19 and len(psn) == 2):
        raise ValueError("a card number has 12 to 19 digits, a sequence number two")
    factor = bytes.fromhex(digits[-16:].zfill(16))
    return factor + factor.translate(_COMPLEMENT)


def udk_factor_b(pan: str, psn: str) -> bytes:
    """Factor ‖ complement of option B: decimalised SHA-1 for a PAN of more than 16 digits, option A below.

    Args:
        pan: 12 to 19 decimal digits.
        psn: two decimal digits, "00" when the card has none.
    Raises:
        ValueError: not such digits.
    Source: EMV 4.3 Book 2, A1.4.2.
    """
    if len(pan) <= 16:
        return udk_factor_a(pan, psn)
    udk_factor_a(pan, psn)
    digits = pan + psn
    packed = bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)
    digest = hashlib.sha1(packed, usedforsecurity=False).hexdigest()
    decimals = [digit for digit in digest if digit.isdigit()]
    letters = [digit.translate(_DECIMALISE) for digit in digest if not digit.isdigit()]
    factor = bytes.fromhex("".join((decimals + letters)[:16]))
    return factor + factor.translate(_COMPLEMENT)


def udk_factor_of(option: UdkOption) -> Callable[[str, str], bytes]:
    """The factor function of an option."""
    return udk_factor_a if option is UdkOption.A else udk_factor_b


def card_key_usage(usage: KeyUsage) -> KeyUsage:
    """What card keys below an issuer master key of this usage are for: ``UDK_SMI`` below ``IMK_SMI``."""
    return _CARD_KEY_OF[usage]


def derive_udk(imk: Key, *, pan: str, psn: str, option: UdkOption = UdkOption.A) -> Key:
    """Derives a card's unique key as PBOC does: option A whatever the PAN's length, parity left as computed.

    Args:
        imk: issuer master key, usage ``IMK_AC``, ``IMK_SMI`` or ``IMK_SMC``; the card key is of the same family.
        pan: 12 to 19 decimal digits.
        psn: two decimal digits, "00" when the card has none.
        option: B for issuers that decimalise PANs of more than 16 digits.
    Raises:
        KeyUsageError: ``imk`` may not derive card keys.
        ValueError: malformed PAN or sequence number.
    Source: PBOC 3.0 (JR/T 0025.7) sub-key derivation; EMV 4.3 Book 2, A1.4.
    """
    imk.require(*_CARD_KEY_OF)
    return Key(imk.cipher, _CARD_KEY_OF[imk.usage], encrypt_ecb(imk, udk_factor_of(option)(pan, psn)))


def derive_udk_option_a(imk: Key, *, pan: str, psn: str) -> Key:
    """Derives a card's unique key, 3DES keys in odd parity.

    Args, errors: as ``derive_udk``.
    Source: EMV 4.3 Book 2, A1.4.1.
    """
    return _with_odd_parity(derive_udk(imk, pan=pan, psn=psn, option=UdkOption.A))


def derive_udk_option_b(imk: Key, *, pan: str, psn: str) -> Key:
    """Derives a card's unique key from a PAN of more than 16 digits, 3DES keys in odd parity.

    Args, errors: as ``derive_udk``.
    Source: EMV 4.3 Book 2, A1.4.2.
    """
    return _with_odd_parity(derive_udk(imk, pan=pan, psn=psn, option=UdkOption.B))


def pboc_session_factor(atc: int) -> bytes:
    """R ‖ R', where R = 00×6 ‖ ATC and R' = 00×6 ‖ ~ATC, 16 bytes.

    Args:
        atc: application transaction counter, 0 to 65535.
    Raises:
        OverflowError: out of bounds.
    Source: PBOC 3.0 (JR/T 0025.7) session key. Only the counter is complemented, not the zeros before it.
    """
    if not 0 <= atc <= 0xFFFF:
        raise OverflowError("a transaction counter has two bytes")
    return (atc << 64 | atc ^ 0xFFFF).to_bytes(16)


def emv_session_factor(cipher: Cipher, diversifier: bytes) -> bytes:
    """What the EMV common session key encrypts: two variants of 8 bytes (3DES) or one padded block (AES-128).

    Args:
        cipher: 3DES or AES; EMV knows no SM4.
        diversifier: 8 bytes, ATC ‖ 00×6 for cryptograms, the ARQC for secure messaging.
    Raises:
        KeyUsageError: the cipher has no such method.
        ValueError: not 8 bytes.
    Source: EMV 4.3 Book 2, A1.3.1.
    """
    if len(diversifier) != 8:
        raise ValueError("a session diversifier has 8 bytes")
    if cipher is Cipher.TDES:
        head, tail = diversifier[:2], diversifier[3:]
        return head + b"\xf0" + tail + head + b"\x0f" + tail
    if cipher is Cipher.AES:
        return diversifier + bytes(8)
    raise KeyUsageError(f"EMV defines no common session key for {cipher.value}")


def session_factor(cipher: Cipher, method: SessionMethod, atc: int) -> bytes:
    """The 16 bytes a card key encrypts to become a cryptogram's session key, by either method."""
    if method is SessionMethod.PBOC:
        return pboc_session_factor(atc)
    return emv_session_factor(cipher, atc.to_bytes(2) + bytes(6))


def derive_pboc_session_key(udk: Key, *, atc: int) -> Key:
    """R = 00×6 ‖ ATC, R' = 00×6 ‖ ~ATC; 3DES: E(U, R) ‖ E(U, R'); SM4 and AES: E(U, R ‖ R').

    Args:
        udk: card key, usage ``UDK_AC``, ``UDK_SMI`` or ``UDK_SMC``; the session key is of the same family.
        atc: application transaction counter, 0 to 65535.
    Raises:
        KeyUsageError: not a card key.
        OverflowError: ``atc`` out of bounds.
    Source: PBOC 3.0 (JR/T 0025.7) session key; AES is a profile of this project.
    """
    udk.require(*_SESSION_KEY_OF)
    return Key(udk.cipher, _SESSION_KEY_OF[udk.usage], encrypt_ecb(udk, pboc_session_factor(atc)))


def derive_emv_common_session_key(udk: Key, *, diversifier: bytes) -> Key:
    """EMV common session key, 3DES keys in odd parity.

    Args:
        udk: card key, usage ``UDK_AC``, ``UDK_SMI`` or ``UDK_SMC``; 3DES or AES-128.
        diversifier: 8 bytes, ATC ‖ 00×6 for cryptograms, the ARQC for secure messaging.
    Raises:
        KeyUsageError: not a card key, or SM4.
        ValueError: not 8 bytes.
    Source: EMV 4.3 Book 2, A1.3.1.
    """
    udk.require(*_SESSION_KEY_OF)
    factor = emv_session_factor(udk.cipher, diversifier)
    return _with_odd_parity(Key(udk.cipher, _SESSION_KEY_OF[udk.usage], encrypt_ecb(udk, factor)))


def _with_odd_parity(key: Key) -> Key:
    return Key(key.cipher, key.usage, odd_parity(key.value)) if key.cipher is Cipher.TDES else key


def _require_region(region: str) -> None:
    if not (region.isdigit() and region.isascii() and len(region) == 6):
        raise ValueError("a region has six digits")
