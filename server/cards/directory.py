"""From what a reader sees to the card: resolved by blind index, cached, one look-up for a whole batch.

Only facts that never change for a card row are cached; what changes lives in ``card_states`` and is read under the
lock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from enum import IntEnum, StrEnum
from itertools import islice
from typing import Any

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


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What never changes about a card. ``name_index`` is the blind index of its holder's name, 16 bytes."""

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
    expires_on: date
    name_index: bytes

    @property
    def ac_key(self) -> KeyRef:
        """Issuer master key of the card's cryptograms."""
        return KeyRef(AC_KEY_NAMES[self.cipher], self.ac_key_version)

    @property
    def ss_key(self) -> KeyRef:
        """Province-level master key of the card's internal authentication."""
        return KeyRef(SS_KEY_NAMES[self.cipher], self.ss_key_version)


class CardDirectory:
    """Card facts by blind index, with a bounded cache; the facts that came first go first."""

    def __init__(self, *, cache_max: int) -> None:
        self._cache: dict[bytes, CardFacts] = {}
        self._cache_max = cache_max

    async def find(
        self, connection: "asyncpg.Connection[Any]", indexes: Iterable[bytes]
    ) -> dict[bytes, CardFacts]:
        """The cards that exist among ``indexes`` (16 bytes each), with one statement for those not in the cache."""
        cache = self._cache
        found: dict[bytes, CardFacts] = {}
        missing = []
        for index in indexes:
            facts = cache.get(index)
            if facts is None:
                missing.append(index)
            else:
                found[index] = facts
        if missing:
            rows = await connection.fetch(FIND_CARDS, missing)
            fresh = {row[0]: CardFacts(*row[1:]) for row in rows}
            found |= fresh
            cache.update(fresh)
            for index in list(islice(cache, max(0, len(cache) - self._cache_max))):
                del cache[index]
        return found
