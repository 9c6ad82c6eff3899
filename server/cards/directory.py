"""From what a reader sees to the card: resolved by blind index, cached, before the batch.

Only facts that never change for a card row are cached; what changes lives in ``card_states`` and is read under the
lock. Look-ups that miss while one is out are answered together by the next one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any

import asyncpg

from crypto.keys import KeyRef
from server.database.pool import acquired
from server.database.statements import load

FIND_CARDS = load("server.cards")["find_cards"]
LOOK_UP_MAX = 1024


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
    """Card facts by blind index, with a bounded cache of the cards used last."""

    def __init__(self, pool: "asyncpg.Pool[Any]", *, cache_max: int) -> None:
        self._pool = pool
        self._cache: OrderedDict[bytes, CardFacts] = OrderedDict()
        self._cache_max = cache_max
        self._wanted: set[bytes] = set()
        self._look_up: asyncio.Task[dict[bytes, CardFacts]] | None = None

    async def find(self, index: bytes) -> CardFacts | None:
        """The card that ``index`` (16 bytes) names, or None.

        Raises:
            DatabaseUnavailableError: the database does not answer.
        """
        facts = self._cache.get(index)
        return facts if facts is not None else (await self.find_many((index,))).get(index)

    async def find_many(self, indexes: Sequence[bytes]) -> dict[bytes, CardFacts]:
        """The cards that exist among ``indexes``.

        Raises:
            DatabaseUnavailableError: the database does not answer.
        """
        cache = self._cache
        found = {index: cache[index] for index in indexes if index in cache}
        missing = [index for index in indexes if index not in found]
        for start in range(0, len(missing), LOOK_UP_MAX):
            found |= await self._look_up_together(missing[start : start + LOOK_UP_MAX])
        return found

    async def _look_up_together(self, missing: Iterable[bytes]) -> dict[bytes, CardFacts]:
        """Joins the look-up that waits to start, or starts one."""
        self._wanted.update(missing)
        if self._look_up is None:
            self._look_up = asyncio.create_task(self._run_look_up())
        # Shielded: the look-up serves others too when this caller goes away.
        return await asyncio.shield(self._look_up)

    async def _run_look_up(self) -> dict[bytes, CardFacts]:
        try:
            async with acquired(self._pool) as connection:
                # No await between here and the end of the statement's start: whoever comes later starts anew.
                wanted = self._close_look_up()
                rows = await connection.fetch(FIND_CARDS, wanted)
        finally:
            if self._look_up is asyncio.current_task():
                self._close_look_up()
        found = {row[0]: CardFacts(*row[1:]) for row in rows}
        self._cache.update(found)
        while len(self._cache) > self._cache_max:
            self._cache.popitem(last=False)
        return found

    def _close_look_up(self) -> list[bytes]:
        wanted, self._wanted, self._look_up = list(self._wanted), set(), None
        return wanted
