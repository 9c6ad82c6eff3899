"""The cards of a bench core: stored in its database, with their keys on this side, as chips hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from benchmarks.core_process import BenchCore
from benchmarks.operations import CardDeck, OperationSource
from crypto.key_store.software import SoftwareKeyStore
from server.cards.seed import seed_cards
from server.cards.synthetic import synthetic_pan
from server.database import pool
from server.settings import socket_dsn

# Far more than a card can spend in a bench: a decline for want of money would not be the core's work.
OPENING_BALANCE_MINOR: Final = 100_000_000
IMK_NAME: Final = "imk-ac-sm4"
PSN: Final = "00"


def prepare_cards(core: BenchCore, *, count: int, seed: int) -> OperationSource:
    """Seeds the core with cards and returns the source of their purchases.

    Args:
        core: running, without cards.
        count: how many.
        seed: of the choice of cards, amounts and unpredictable numbers.
    """
    store = SoftwareKeyStore.open(core.data_dir / "keys")
    asyncio.run(_seed(core, store, count=count))
    deck = make_deck(store, [(synthetic_pan(number), PSN) for number in range(count)])
    return OperationSource(deck, seed=seed)


def make_deck(store: SoftwareKeyStore, cards: Sequence[tuple[str, str]]) -> CardDeck:
    """Derives the keys of many cards at once, as a personalisation bureau does.

    Args:
        store: the key store the core verifies with.
        cards: PAN and PAN sequence number of each.
    """
    ref = store.active(IMK_NAME)
    udks = store.diversify_udks(ref, cards)
    return CardDeck(
        pans=tuple(pan for pan, _ in cards),
        psns=tuple(psn for _, psn in cards),
        udks=b"".join(key.value for key in udks),
        cipher=udks[0].cipher,
    )


async def _seed(core: BenchCore, store: SoftwareKeyStore, *, count: int) -> None:
    connection = await pool.connect(socket_dsn(core.socket_dir), application_name="onecard bench")
    try:
        await seed_cards(connection, store, count=count, opening_balance_minor=OPENING_BALANCE_MINOR)
    finally:
        await connection.close()
