"""Chip data off the wire: checked, and encoded as the card signed it."""

from collections.abc import Callable
from typing import TypeVar

from onecard.v1 import common_pb2, cryptography_pb2

from crypto.cryptogram import ARQC_SIZE, TransactionData, TransactionDataError, encode_transaction_data
from crypto.diversification import SessionMethod
from server.cards.identifiers import parse_identification_code
from server.cards.presented import PresentedCryptogram
from server.edge import fields
from server.errors import MalformedFieldError

T = TypeVar("T")
CNY_NUMERIC = "156"
CHINA_NUMERIC = "156"
FIRST_PSN = "00"
CHIP_RESPONSE_SIZE = 8
# Two digits; the empty text of any other number is refused as out of bounds.
TRANSACTION_TYPES = {number: f"{number:02d}" for number in range(100)}
SESSION_METHODS: dict[int, SessionMethod] = {
    cryptography_pb2.SESSION_KEY_METHOD_UNSPECIFIED: SessionMethod.PBOC,
    cryptography_pb2.SESSION_KEY_METHOD_PBOC: SessionMethod.PBOC,
    cryptography_pb2.SESSION_KEY_METHOD_EMV_COMMON: SessionMethod.EMV_COMMON,
}


def transaction_data(chip: common_pb2.ChipCryptogram, *, amount_minor: int) -> TransactionData:
    """The data elements of a purchase, not yet checked: ``encode`` does. ``chip.iad`` is at least 7 bytes."""
    return _from_elements(TransactionData, chip, amount_minor)


def _from_elements(make: Callable[..., T], chip: common_pb2.ChipCryptogram, amount_minor: int) -> T:
    return make(
        amount_authorized_minor=amount_minor,
        amount_other_minor=0,
        terminal_country_code=chip.terminal_country_code or CHINA_NUMERIC,
        tvr=chip.tvr,
        transaction_currency_code=CNY_NUMERIC,
        transaction_date=chip.transaction_date,
        transaction_type=TRANSACTION_TYPES.get(chip.transaction_type, ""),
        unpredictable_number=chip.unpredictable_number,
        aip=chip.aip,
        atc=chip.atc,
        cvr=chip.iad[3:7],
    )


def presented_cryptogram(
    path: str, chip: common_pb2.ChipCryptogram, *, pan: str, amount_minor: int
) -> PresentedCryptogram:
    """Checks the chip's data; the amount is the request's own, so a changed one breaks the cryptogram.

    Raises:
        MalformedFieldError: an element is out of its bounds; names it below ``path``.
    """
    iad = chip.iad
    arqc = chip.arqc
    psn = chip.psn or FIRST_PSN
    if len(arqc) != ARQC_SIZE:
        raise MalformedFieldError(f"{path}.arqc", f"must be {ARQC_SIZE} bytes")
    if not 7 <= len(iad) <= 32:
        raise MalformedFieldError(f"{path}.iad", "must be 7 to 32 bytes")
    if chip.atc == 0:
        raise MalformedFieldError(f"{path}.atc", "must be 1 to 65535")
    if len(psn) != 2 or not (psn.isdigit() and psn.isascii()):
        raise MalformedFieldError(f"{path}.psn", "must be 2 digits")
    try:
        encoded = _from_elements(encode_transaction_data, chip, amount_minor)
    except TransactionDataError as error:
        # The elements are called as the fields are.
        raise MalformedFieldError(f"{path}.{error.element}", "is out of its bounds") from None
    # Bits 6 and 5 of the second byte of the card verification results: 10 is a request to go online (PBOC 3.0,
    # JR/T 0025.5).
    is_request = iad[4] >> 4 & 0b11 == 0b10
    return PresentedCryptogram(pan, psn, encoded, chip.atc, arqc, is_request)


def checked_chip_answer(path: str, answer: common_pb2.ChipAnswer) -> tuple[str, str, bytes]:
    """Identification code, challenge token and response of a chip's answer.

    Raises:
        MalformedFieldError: a part is malformed.
    """
    code = fields.parsed(f"{path}.identification_code", parse_identification_code, answer.identification_code)
    token = fields.visible(f"{path}.challenge_token", answer.challenge_token, length_min=1, length_max=64)
    return code, token, fields.exactly(f"{path}.response", answer.response, size=CHIP_RESPONSE_SIZE)
