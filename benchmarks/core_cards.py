"""The cards of a bench core: stored in its database, with their keys on this side, as chips hold them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.core_process import BenchCore, database_bytes
from benchmarks.cpu_accounting import cores
from benchmarks.operations import CardDeck, OperationSource
from crypto.key_store.software import SoftwareKeyStore
from server.cards.seed import seed_cards
from server.cards.seed_parallel import seed_cards_in_parallel
from server.cards.synthetic import synthetic_pan
from server.database import pool
from server.settings import socket_dsn

# Far more than a card can spend in a bench: a decline for want of money would not be the core's work.
OPENING_BALANCE_MINOR: Final = 100_000_000
IMK_NAME: Final = "imk-ac-sm4"
PSN: Final = "00"
# Of a large base, so many cards make purchases: more than a run has operations would only cost preparation.
DECK_CARDS_MAX: Final = 200_000
# So many that two batches seldom meet in one of them: waiting for its lock is not what a decline costs.
POOR_CARDS: Final = 10_000
POOR_BALANCE_MINOR: Final = 1


@dataclass(frozen=True, kw_only=True)
class CardBase:
    """What loading the cards of a core took.

    Args:
        cards: how many.
        load_s: seconds, indexes and statistics included.
        disk_bytes: growth of the database, its log excluded.
    """

    cards: int
    load_s: float
    disk_bytes: int


def load_cards(core: BenchCore, *, count: int) -> CardBase:
    """Loads the synthetic cards 0 to ``count - 1``, and ``POOR_CARDS`` more that can buy nothing.

    Args:
        core: running, without cards.
        count: how many with money.
    """
    before_bytes, started_s = database_bytes(core), time.monotonic()
    dsn, keys_dir = socket_dsn(core.socket_dir), core.data_dir / "keys"
    asyncio.run(_load_poor_cards(dsn, keys_dir, first=count))
    seed_cards_in_parallel(
        dsn, keys_dir, count=count, opening_balance_minor=OPENING_BALANCE_MINOR, processes=cores()
    )
    return CardBase(
        cards=count,
        load_s=time.monotonic() - started_s,
        disk_bytes=database_bytes(core) - before_bytes,
    )


def open_source(core: BenchCore, *, count: int, seed: int) -> OperationSource:
    """The source of the purchases of cards that :func:`load_cards` has loaded.

    Args:
        core: with the cards.
        count: how many with money were loaded; of more than ``DECK_CARDS_MAX``, a random sample is used.
        seed: of the choice of cards, amounts and unpredictable numbers.
    """
    rich = random.Random(seed).sample(range(count), min(count, DECK_CARDS_MAX))
    poor = range(count, count + POOR_CARDS)
    store = SoftwareKeyStore.open(core.data_dir / "keys")
    deck = make_deck(store, [(synthetic_pan(number), PSN) for number in (*rich, *poor)], poor=len(poor))
    return OperationSource(deck, seed=seed)


def make_deck(store: SoftwareKeyStore, cards: Sequence[tuple[str, str]], *, poor: int) -> CardDeck:
    """Derives the keys of many cards at once, as a personalisation bureau does.

    Args:
        store: the key store the core verifies with.
        cards: PAN and PAN sequence number of each.
        poor: how many at the end of them have no money.
    """
    ref = store.active(IMK_NAME)
    udks = store.diversify_udks(ref, cards)
    return CardDeck(
        pans=tuple(pan for pan, _ in cards),
        psns=tuple(psn for _, psn in cards),
        udks=b"".join(key.value for key in udks),
        cipher=udks[0].cipher,
        poor=poor,
    )


async def _load_poor_cards(dsn: str, keys_dir: Path, *, first: int) -> None:
    connection = await pool.connect(dsn, application_name="onecard bench")
    try:
        await seed_cards(
            connection,
            SoftwareKeyStore.open(keys_dir),
            first=first,
            count=POOR_CARDS,
            opening_balance_minor=POOR_BALANCE_MINOR,
        )
    finally:
        await connection.close()
