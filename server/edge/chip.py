"""Chip data off the wire: checked, and encoded as the card signed it."""

from dataclasses import dataclass

from onecard.v1 import common_pb2

from crypto.cryptogram import TransactionData
from server.cards.identifiers import parse_identification_code
from server.edge import fields
from server.errors import MalformedFieldError

CNY_NUMERIC = "156"
CHINA_NUMERIC = "156"
CHIP_RESPONSE_SIZE = 8


@dataclass(slots=True)
class PresentedCryptogram:
    """An application cryptogram as presented: ``data`` is what the card signed, encoded."""

    psn: str
    data: bytes
    atc: int
    arqc: bytes


def presented_cryptogram(
    path: str, chip: common_pb2.ChipCryptogram, *, amount_minor: int
) -> PresentedCryptogram:
    """Checks the chip's data; the amount is the request's own, so a changed one breaks the cryptogram.

    Raises:
        MalformedFieldError: an element is out of its bounds; names it below ``path``.
    """
    iad = chip.iad
    if not 7 <= len(iad) <= 32:
        raise MalformedFieldError(f"{path}.iad", "must be 7 to 32 bytes")
    if not 1 <= chip.atc <= 0xFFFF:
        raise MalformedFieldError(f"{path}.atc", "must be 1 to 65535")
    if chip.transaction_type > 99:
        raise MalformedFieldError(f"{path}.transaction_type", "must be 0 to 99")
    data = TransactionData(
        amount_authorized_minor=amount_minor,
        amount_other_minor=0,
        terminal_country_code=fields.digits(
            f"{path}.terminal_country_code", chip.terminal_country_code, size=3, default=CHINA_NUMERIC
        ),
        tvr=fields.exactly(f"{path}.tvr", chip.tvr, size=5),
        transaction_currency_code=CNY_NUMERIC,
        transaction_date=fields.digits(f"{path}.transaction_date", chip.transaction_date, size=6),
        transaction_type=f"{chip.transaction_type:02d}",
        unpredictable_number=fields.exactly(
            f"{path}.unpredictable_number", chip.unpredictable_number, size=4
        ),
        aip=fields.exactly(f"{path}.aip", chip.aip, size=2),
        atc=chip.atc,
        cvr=iad[3:7],
    )
    return PresentedCryptogram(
        psn=fields.digits(f"{path}.psn", chip.psn, size=2, default="00"),
        data=data.encode(),
        atc=chip.atc,
        arqc=fields.exactly(f"{path}.arqc", chip.arqc, size=8),
    )


def checked_chip_answer(path: str, answer: common_pb2.ChipAnswer) -> tuple[str, str, bytes]:
    """Identification code, challenge token and response of a chip's answer.

    Raises:
        MalformedFieldError: a part is malformed.
    """
    code = fields.parsed(f"{path}.identification_code", parse_identification_code, answer.identification_code)
    token = fields.visible(f"{path}.challenge_token", answer.challenge_token, length_min=1, length_max=64)
    return code, token, fields.exactly(f"{path}.response", answer.response, size=CHIP_RESPONSE_SIZE)
