"""Synthetic cards must be valid and different for as many cards as a province ever loads."""

import random
from datetime import date

import pytest

from crypto.identification_code import IdentificationCodes
from crypto.keys import Cipher, Key, KeyUsage
from server.cards.identifiers import (
    parse_card_number,
    parse_identification_code,
    parse_identity_number,
    parse_pan,
    parse_region,
)
from server.cards.synthetic import BIRTH_DAYS, CITIES, synthetic_card, synthetic_pan

CARDS_MAX = 50_000_000
CODES = IdentificationCodes(Key(Cipher.SM4, KeyUsage.IDENTIFICATION_CODE, bytes(16)))
# Where a field of an identifier carries over, and both ends.
EDGES = (
    0,
    1,
    10,
    11,
    36,
    65_535,
    65_536,
    999_999,
    1_000_000,
    9_999_999,
    10_000_000,
    2**24 - 1,
    2**24,
    CARDS_MAX,
)
TURNS = tuple(len(CITIES) * BIRTH_DAYS * turn for turn in (1, 2, 99, 100, 189))


@pytest.mark.parametrize("n", [*EDGES, *TURNS, *(turn - 1 for turn in TURNS)])
def test_every_identifier_passes_its_own_check(n: int) -> None:
    card = synthetic_card(n, CODES)
    assert parse_pan(card.pan) == card.pan == synthetic_pan(n)
    assert len(card.pan) == 19
    assert parse_identity_number(card.identity_number, today=date(2026, 1, 1)) == card.identity_number
    assert parse_card_number(card.card_number) == card.card_number
    assert parse_identification_code(card.identification_code) == card.identification_code
    CODES.verify(card.identification_code)
    assert parse_region(card.issuing_region) == card.issuing_region
    assert len(card.atr_historical_bytes) == 13
    assert len(card.card_alias) == 8


def test_no_identifier_comes_twice() -> None:
    rng = random.Random(5)
    numbers = {*rng.sample(range(CARDS_MAX), 20_000), *range(3_000), *range(CARDS_MAX - 3_000, CARDS_MAX)}
    # Neighbours by city, by day of birth and by turn, where a clumsy numbering would repeat itself.
    numbers |= {n + step for n in TURNS for step in range(-300, 300)}
    cards = [synthetic_card(n, CODES) for n in numbers]
    for name in ("pan", "identity_number", "card_number", "identification_code", "card_alias"):
        assert len({getattr(card, name) for card in cards}) == len(numbers), name
