"""Application cryptograms: what the card signs (ARQC) and how the issuer answers (ARPC).

``ArqcSession`` keeps the contexts of one session key alive, so that a check and its answer cost one key
schedule; the typed functions below it are the standards' formulas. Must never know where keys come from.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn, SupportsIndex

from crypto.errors import CryptogramInvalidError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import CbcMacContext, MacContext, RetailMacContext

ARQC_SIZE = 8
AMOUNT_MINOR_MAX = 10**12 - 1
ATC_MAX = 0xFFFF
# Padding method 2 by what a message leaves of its last block.
_TAILS_8, _TAILS_16 = (
    tuple((b"\x80" + bytes(size))[: size - rest] for rest in range(size)) for size in (8, 16)
)


class TransactionDataError(ValueError):
    """A data element is out of its shape; ``element`` names it, nothing tells its value."""

    def __init__(self, element: str) -> None:
        super().__init__(f"transaction data: {element} is out of its shape")
        self.element = element


@dataclass(slots=True, kw_only=True)
class TransactionData:
    """The data elements under an application cryptogram, in the order they are signed.

    Not frozen: freezing costs 2 µs per card operation.

    Args:
        amount_authorized_minor: tag 9F02, minor units, 0 to 10^12 − 1.
        amount_other_minor: tag 9F03, minor units, same bounds.
        terminal_country_code: tag 9F1A, three digits of ISO 3166-1, "156".
        tvr: tag 95, terminal verification results, 5 bytes.
        transaction_currency_code: tag 5F2A, three digits of ISO 4217, "156".
        transaction_date: tag 9A, six digits YYMMDD.
        transaction_type: tag 9C, two digits.
        unpredictable_number: tag 9F37, 4 bytes.
        aip: tag 82, application interchange profile, 2 bytes.
        atc: tag 9F36, application transaction counter, 0 to 65535.
        cvr: card verification results, 4 bytes: bytes 4 to 7 of tag 9F10.
    """

    amount_authorized_minor: int
    amount_other_minor: int
    terminal_country_code: str
    tvr: bytes
    transaction_currency_code: str
    transaction_date: str
    transaction_type: str
    unpredictable_number: bytes
    aip: bytes
    atc: int
    cvr: bytes

    def encode(self) -> bytes:
        """See ``encode_transaction_data``."""
        return encode_transaction_data(
            amount_authorized_minor=self.amount_authorized_minor,
            amount_other_minor=self.amount_other_minor,
            terminal_country_code=self.terminal_country_code,
            tvr=self.tvr,
            transaction_currency_code=self.transaction_currency_code,
            transaction_date=self.transaction_date,
            transaction_type=self.transaction_type,
            unpredictable_number=self.unpredictable_number,
            aip=self.aip,
            atc=self.atc,
            cvr=self.cvr,
        )

    def misshapen(self) -> str:
        """Name of the first element out of its shape; only an error asks."""
        for name in ("amount_authorized_minor", "amount_other_minor"):
            if not 0 <= getattr(self, name) <= AMOUNT_MINOR_MAX:
                return name
        if not 0 <= self.atc <= ATC_MAX:
            return "atc"
        digits = {
            "terminal_country_code": 3,
            "transaction_currency_code": 3,
            "transaction_date": 6,
            "transaction_type": 2,
        }
        for name, size in digits.items():
            text: str = getattr(self, name)
            if len(text) != size or not (text.isdigit() and text.isascii()):
                return name
        sizes = {"tvr": 5, "unpredictable_number": 4, "aip": 2, "cvr": 4}
        return next(name for name, size in sizes.items() if len(getattr(self, name)) != size)


def encode_transaction_data(
    *,
    amount_authorized_minor: int,
    amount_other_minor: int,
    terminal_country_code: str,
    tvr: bytes,
    transaction_currency_code: str,
    transaction_date: str,
    transaction_type: str,
    unpredictable_number: bytes,
    aip: bytes,
    atc: int,
    cvr: bytes,
) -> bytes:
    """The 37 bytes that go under the MAC. For who has the elements but no use for a ``TransactionData``, whose making
    would cost as much again.

    Args: those of ``TransactionData``.
    Raises:
        TransactionDataError: an element is out of its shape; names it.
    Source: PBOC 3.0 (JR/T 0025.5) cryptogram version 01 data; EMV 4.3 Book 2, 8.1.1.
    """
    codes = _packed_codes(
        terminal_country_code, transaction_currency_code, transaction_date, transaction_type
    )
    if (
        codes is None
        or not 0 <= amount_authorized_minor <= AMOUNT_MINOR_MAX
        or not 0 <= amount_other_minor <= AMOUNT_MINOR_MAX
        or not 0 <= atc <= ATC_MAX
        or len(tvr) != 5
        or len(unpredictable_number) != 4
        or len(aip) != 2
        or len(cvr) != 4
    ):
        elements = TransactionData(
            amount_authorized_minor=amount_authorized_minor,
            amount_other_minor=amount_other_minor,
            terminal_country_code=terminal_country_code,
            tvr=tvr,
            transaction_currency_code=transaction_currency_code,
            transaction_date=transaction_date,
            transaction_type=transaction_type,
            unpredictable_number=unpredictable_number,
            aip=aip,
            atc=atc,
            cvr=cvr,
        )
        raise TransactionDataError(elements.misshapen())
    # Decimal digits read as hexadecimal ones are their BCD. Joined, because a format string with as many parts takes
    # twice as long.
    return b"".join(
        (
            int(str(amount_authorized_minor), 16).to_bytes(6),
            int(str(amount_other_minor), 16).to_bytes(6),
            codes[0],
            tvr,
            codes[1],
            unpredictable_number,
            aip,
            atc.to_bytes(2),
            cvr,
        )
    )


@lru_cache(maxsize=512)
def _packed_codes(country: str, currency: str, day: str, kind: str) -> tuple[bytes, bytes] | None:
    """BCD of the codes before and behind the TVR, or None when one is malformed: a day's cards all send the same."""
    codes = country + currency + day + kind
    if (
        len(country) != 3
        or len(currency) != 3
        or len(day) != 6
        or len(codes) != 14
        or not (codes.isdigit() and codes.isascii())
    ):
        return None
    return bytes.fromhex(f"0{country}"), bytes.fromhex(f"0{currency}{day}{kind}")


class ArqcSession:
    """One session key at work: checks one cryptogram, then answers it. For one thread at a time."""

    __slots__ = ("_contexts", "_padding_bits", "_tails")

    def __init__(self, cipher: Cipher, session_key: bytes) -> None:
        self._contexts: MacContext
        if cipher is Cipher.TDES:
            self._contexts = RetailMacContext(session_key)
            self._tails = _TAILS_8
            self._padding_bits = 0
        else:
            self._contexts = CbcMacContext(cipher, session_key)
            self._tails = _TAILS_16
            self._padding_bits = 64

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("session keys are neither pickled nor copied")

    def mac(self, message: bytes) -> bytes:
        """8 bytes over ``message``, padded with 80 00…, always.

        Source: EMV 4.3 Book 2, A1.2.1 (3DES); PBOC 3.0 (JR/T 0025.17) for SM4: CBC-MAC, left half.
        """
        tails = self._tails
        return self._contexts.mac(message + tails[len(message) % len(tails)])[:ARQC_SIZE]

    def arpc(self, *, arqc: bytes, arc: bytes) -> bytes:
        """ARPC method 1: see ``generate_arpc_method_1``."""
        if len(arc) != 2:
            raise ValueError("an authorisation response code has 2 bytes")
        answer = int.from_bytes(arqc) ^ int.from_bytes(arc) << 48
        return self._contexts.encrypt(answer << self._padding_bits)[:8]

    def answer_ahead(self, *, arqc: bytes, arcs: Sequence[bytes]) -> None:
        """Nothing: an answer in this process costs a microsecond when it is wanted. See ``checks.VerifiedArqc``."""

    def arpc_method_2(self, *, arqc: bytes, csu: bytes, proprietary: bytes) -> bytes:
        """ARPC method 2: see ``generate_arpc_method_2``."""
        if len(csu) != 4 or len(proprietary) > 8:
            raise ValueError("a card status update has 4 bytes, proprietary data at most 8")
        return self.mac(arqc + csu + proprietary)[:4]


def generate_arqc(session_key: Key, data: bytes) -> bytes:
    """Computes an application cryptogram, 8 bytes.

    Args:
        session_key: usage ``SESSION_AC``.
        data: the signed data elements, see ``TransactionData.encode``.
    Raises:
        KeyUsageError: not a session key for cryptograms.
    Source: EMV 4.3 Book 2, 8.1.2; PBOC 3.0 (JR/T 0025.5, .17). 3DES: ISO/IEC 9797-1 algorithm 3; SM4 and AES
        (profile of this project): algorithm 1, left 8 bytes; padding method 2.
    """
    return _session(session_key).mac(data)


def verify_arqc(session_key: Key, data: bytes, *, arqc: bytes) -> None:
    """Checks an application cryptogram.

    Args:
        session_key: usage ``SESSION_AC``.
        data: the signed data elements.
        arqc: 8 bytes as the card sent them.
    Raises:
        CryptogramInvalidError: not the card's cryptogram over this data.
        KeyUsageError: not a session key for cryptograms.
    Source: EMV 4.3 Book 2, 8.1.2; PBOC 3.0 (JR/T 0025.5, .17).
    """
    if not hmac.compare_digest(generate_arqc(session_key, data), arqc):
        raise CryptogramInvalidError("the application cryptogram does not fit the data")


def generate_arpc_method_1(session_key: Key, *, arqc: bytes, arc: bytes) -> bytes:
    """Answers a cryptogram: E(SK, ARQC xor (ARC ‖ 00×6)), 8 bytes; SM4 and AES: left 8 of E(SK, that ‖ 00×8).

    Args:
        session_key: usage ``SESSION_AC``.
        arqc: 8 bytes.
        arc: authorisation response code, 2 bytes (``b"00"`` approves).
    Raises:
        KeyUsageError: not a session key for cryptograms.
        ValueError: wrong lengths.
    Source: EMV 4.3 Book 2, 8.2.1; PBOC 3.0 (JR/T 0025.5, .17).
    """
    _require_arqc(arqc)
    return _session(session_key).arpc(arqc=arqc, arc=arc)


def verify_arqc_generate_arpc(session_key: Key, data: bytes, *, arqc: bytes, arc: bytes) -> bytes:
    """Checks a cryptogram and, only if it is the card's, answers it by method 1: one key schedule for both.

    Args:
        session_key: usage ``SESSION_AC``.
        data: the signed data elements.
        arqc: 8 bytes as the card sent them.
        arc: authorisation response code, 2 bytes.
    Raises:
        CryptogramInvalidError: not the card's cryptogram over this data; nothing is answered.
        KeyUsageError: not a session key for cryptograms.
        ValueError: ``arc`` of a wrong length.
    Source: EMV 4.3 Book 2, 8.1.2 and 8.2.1; PBOC 3.0 (JR/T 0025.5, .17).
    """
    session = _session(session_key)
    if not hmac.compare_digest(session.mac(data), arqc):
        raise CryptogramInvalidError("the application cryptogram does not fit the data")
    return session.arpc(arqc=arqc, arc=arc)


def generate_arpc_method_2(session_key: Key, *, arqc: bytes, csu: bytes, proprietary: bytes = b"") -> bytes:
    """Answers a cryptogram: MAC over ARQC ‖ CSU ‖ proprietary data, left 4 bytes.

    Args:
        session_key: usage ``SESSION_AC``.
        arqc: 8 bytes.
        csu: card status update, 4 bytes.
        proprietary: proprietary authentication data, at most 8 bytes.
    Raises:
        KeyUsageError: not a session key for cryptograms.
        ValueError: wrong lengths.
    Source: EMV 4.3 Book 2, 8.2.2.
    """
    _require_arqc(arqc)
    return _session(session_key).arpc_method_2(arqc=arqc, csu=csu, proprietary=proprietary)


def _session(session_key: Key) -> ArqcSession:
    session_key.require(KeyUsage.SESSION_AC)
    return ArqcSession(session_key.cipher, session_key.value)


def _require_arqc(arqc: bytes) -> None:
    if len(arqc) != ARQC_SIZE:
        raise ValueError("a cryptogram has 8 bytes")
