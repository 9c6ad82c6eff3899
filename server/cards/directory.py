"""From what a reader sees to the card: resolved by blind index, cached, one look-up for a whole batch.

Only facts that never change for a card row are cached; what changes lives in ``card_states`` and is read under the
lock.
"""

from collections.abc import Iterable
from datetime import date
from enum import IntEnum, StrEnum
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import asyncpg

from crypto.keys import KeyRef
from server.database.statements import load

FIND_CARDS = load("server.cards")["find_cards"]


class CredentialKind(StrEnum):
    """What names a card; the word is part of the blind index's input and never changes."""

    PAN = "pan"
    IDENTIFICATION_CODE = "identification_code"
    CARD_NUMBER = "card_number"
    IDENTITY_NUMBER = "identity_number"
    ALIAS = "alias"
    CARD_TOKEN = "card_token"  # noqa: S105 - a kind, no secret


NAME_KIND = "name"


class CardCipher(IntEnum):
    """Cipher of a card's keys, as stored and as on the wire."""

    SM4 = 1
    TDES = 2
    AES = 3


AC_KEY_NAMES: dict[int, str] = {
    CardCipher.SM4: "imk-ac-sm4",
    CardCipher.TDES: "imk-ac-tdes",
    CardCipher.AES: "imk-ac-aes",
}
SS_KEY_NAMES: dict[int, str] = {
    CardCipher.SM4: "ss-auth-sm4",
    CardCipher.TDES: "ss-auth-tdes",
    CardCipher.AES: "ss-auth-aes",
}


class CardFacts(NamedTuple):
    """What never changes about a card. ``name_index`` is the blind index of its holder's name, 16 bytes.

    A tuple, because one is made for every card that is not in the cache.
    """

    card_id: int
    shard: int
    account_id: int
    issuing_region: str
    cipher: int
    ac_key_version: int
    ss_key_version: int
    psn: str
    atr_historical_bytes: bytes
    card_alias: bytes
    name_index: bytes
    expires_on: date

    @property
    def ac_key(self) -> KeyRef:
        """Issuer master key of the card's cryptograms."""
        return _key_ref(AC_KEY_NAMES[self.cipher], self.ac_key_version)

    @property
    def ss_key(self) -> KeyRef:
        """Province-level master key of the card's internal authentication."""
        return _key_ref(SS_KEY_NAMES[self.cipher], self.ss_key_version)


_key_ref = cache(KeyRef)


class CardDirectory:
    """Card facts by blind index, with a bounded cache; the facts that came first go first."""

    def __init__(self, *, cache_max: int) -> None:
        self._cache: dict[bytes, CardFacts] = {}
        self._cache_max = cache_max

    async def find(
        self, connection: "asyncpg.Connection[Any]", indexes: Iterable[bytes]
    ) -> dict[bytes, CardFacts]:
        """The cards that exist among ``indexes`` (16 bytes each), with one statement for those not in the cache."""
        known = self._cache
        found: dict[bytes, CardFacts] = {}
        missing = []
        for index in indexes:
            facts = known.get(index)
            if facts is None:
                missing.append(index)
            else:
                found[index] = facts
        if missing:
            rows = await connection.fetch(FIND_CARDS, missing)
            fresh = {row[0]: CardFacts._make(row[1:]) for row in rows}
            found |= fresh
            known.update(fresh)
            for index in list(islice(known, max(0, len(known) - self._cache_max))):
                del known[index]
        return found
