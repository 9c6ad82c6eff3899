"""Synthetic residents and cards: valid in every check, of nobody. For demonstration, tests and load only.

Card number ``n`` always looks the same, so that a load generator knows the cards without asking for them.
"""

from datetime import date, timedelta

from crypto.identification_code import IdentificationCodes
from server.cards import identifiers
from server.cards.directory import CardCipher
from server.cards.store import NewCard

SURNAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗"
GIVEN_NAMES = "伟芳娜敏静秀英丽强磊军洋勇艳杰娟涛明超兰霞平刚桂"
ATR_PREFIX = bytes.fromhex("00814E432386971599")
CITIES = tuple(identifiers.CITIES)
FIRST_BIRTH = date(1940, 1, 1)
BIRTH_DAYS = 24_000
EXPIRES_ON = date(2099, 12, 31)
TRANSACTION_AMOUNT_MAX_MINOR = 500_000
DAY_AMOUNT_MAX_MINOR = 100_000_000


def synthetic_region(n: int) -> str:
    """City of card ``n``: the eleven cities in turn."""
    return CITIES[n % len(CITIES)]


def synthetic_pan(n: int) -> str:
    """PAN of card ``n``, 19 digits."""
    digits = f"621700{n:012d}"
    return digits + identifiers.luhn_digit(digits)


def synthetic_atr(n: int) -> bytes:
    """Historical bytes of card ``n``: 13 bytes that end with the chip's serial number."""
    return ATR_PREFIX + n.to_bytes(4)


def synthetic_name(n: int) -> str:
    """Name of the holder of card ``n``."""
    given = len(GIVEN_NAMES)
    return (
        SURNAMES[n % len(SURNAMES)]
        + GIVEN_NAMES[n // len(SURNAMES) % given]
        + GIVEN_NAMES[n * 7 // 480 % given]
    )


def synthetic_identity_number(n: int) -> str:
    """Identity number of the holder of card ``n``: a different one for each ``n`` below 250 million."""
    born = FIRST_BIRTH + timedelta(days=n // len(CITIES) % BIRTH_DAYS)
    sequence = n // len(CITIES) // BIRTH_DAYS
    # District 02 of the city, as real numbers have one.
    first_17 = f"{synthetic_region(n)[:4]}02{born:%Y%m%d}{sequence:03d}"
    return first_17 + identifiers.identity_number_check(first_17)


def synthetic_card(
    n: int,
    identification_codes: IdentificationCodes,
    *,
    cipher: CardCipher = CardCipher.SM4,
    ac_key_version: int = 1,
    ss_key_version: int = 1,
) -> NewCard:
    """Holder and card number ``n`` (0 to 250 million)."""
    first_8 = _base_36(n)
    return NewCard(
        name=synthetic_name(n),
        identity_number=synthetic_identity_number(n),
        issuing_region=synthetic_region(n),
        card_number=first_8 + identifiers.card_number_check(first_8),
        identification_code=identification_codes.generate(
            issuing_region=synthetic_region(n), chip_serial=n.to_bytes(4)
        ),
        atr_historical_bytes=synthetic_atr(n),
        pan=synthetic_pan(n),
        psn="00",
        expires_on=EXPIRES_ON,
        cipher=cipher,
        ac_key_version=ac_key_version,
        ss_key_version=ss_key_version,
        card_alias=b"SYN" + n.to_bytes(5),
        transaction_amount_max_minor=TRANSACTION_AMOUNT_MAX_MINOR,
        day_amount_max_minor=DAY_AMOUNT_MAX_MINOR,
    )


def _base_36(n: int) -> str:
    digits = []
    for _ in range(8):
        n, digit = divmod(n, 36)
        digits.append(identifiers.CARD_NUMBER_ALPHABET[digit])
    return "".join(reversed(digits))
