"""Loads synthetic cards in bulk by COPY, each with an opening balance that is posted like any other money.

``seed_parallel`` loads millions of them with the same steps.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import uuid_utils

from crypto.key_store import KeyStore
from server.cards.directory import CardCipher
from server.cards.rules import CardStatus
from server.cards.service import active_key_versions
from server.cards.store import CardIds, NewCard, RowMaker
from server.cards.synthetic import synthetic_card
from server.database.statements import load
from server.engine.operation import OperationKind

STATEMENTS = load("server.cards")
NEXT_OPERATION_IDS = load("server.engine")["next_operation_ids"]
CARDS_PER_COPY = 10_000
# Every operation updates its card's row and its wallet's in place. PostgreSQL clears a page of old versions when it is
# met less empty than the fill factor leaves pages: a page loaded up to that mark is cleared at every visit, one loaded
# far below it at one of some thirty.
UPDATED_TABLES = ("card_states", "accounts")
FILL_LOADED = 50
FILL_SERVED = 80
APPROVED = 1
PARTICIPANT = "opening-balances"
COLUMNS = {
    "cardholders": "cardholder_id name_sealed identity_number_sealed shard",
    "cards": "card_id account_id issuing_region cipher ac_key_version ss_key_version psn pan_last4 "
    "atr_historical_bytes card_alias name_index expires_on pan_sealed card_number_sealed identification_code_sealed "
    "cardholder_id shard",
    "card_states": "card_id shard status transaction_amount_max_minor day_amount_max_minor",
    "accounts": "account_id card_id shard posted_minor",
    "card_credentials": "credential_index card_id shard",
    "operations": "operation_id request_id card_id amount_minor decided_at business_date shard operation_kind reason "
    "participant_id terminal_id response_code request_digest response",
    "postings": "operation_id posting_number debit_account_id credit_account_id amount_minor business_date shard",
    "event_batches": "first_operation_id last_operation_id operation_count business_date decided_at shard",
}


async def seed_cards(
    connection: "asyncpg.Connection[Any]",
    key_store: KeyStore,
    *,
    count: int,
    opening_balance_minor: int,
    first: int = 0,
    cipher: CardCipher = CardCipher.SM4,
    shards: int = 1,
) -> None:
    """Writes synthetic cards ``first`` to ``first + count - 1``, in use.

    Args:
        opening_balance_minor: what each wallet holds, in 分; at least 1.
        shards: of the core; each card lies where its PAN's blind index says.
    Raises:
        asyncpg.UniqueViolationError: one of them was loaded before.
    """
    seed = Seed(
        opening_balance_minor=opening_balance_minor,
        source_account_id=await open_source_account(connection),
        cipher=cipher,
        shards=shards,
    )
    async with half_empty_pages(connection):
        for numbers in copies(first, count):
            await copy_cards(connection, key_store, seed, numbers)
            await asyncio.sleep(0)
    for table in COLUMNS:
        await connection.execute(f"ANALYZE {table}")


@dataclass(frozen=True, kw_only=True)
class Seed:
    """What all cards of one load share.

    Args:
        opening_balance_minor: of each wallet, in 分.
        source_account_id: the settlement account it comes from.
        cipher: of the cards' keys.
        shards: of the core.
    """

    opening_balance_minor: int
    source_account_id: int
    cipher: CardCipher = CardCipher.SM4
    shards: int = 1


@contextlib.asynccontextmanager
async def half_empty_pages(connection: "asyncpg.Connection[Any]") -> AsyncIterator[None]:
    """Loads within it leave room for new row versions in each page; afterwards pages fill as migrations say."""
    await _set_fill(connection, FILL_LOADED)
    try:
        yield
    finally:
        await _set_fill(connection, FILL_SERVED)


async def _set_fill(connection: "asyncpg.Connection[Any]", percent: int) -> None:
    for table in UPDATED_TABLES:
        await connection.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")


async def open_source_account(connection: "asyncpg.Connection[Any]") -> int:
    """The settlement account that opening balances come from; made when it is missing."""
    await connection.execute(STATEMENTS["seed_participant"])
    account_id: int = await connection.fetchval(STATEMENTS["seed_account"])
    return account_id


def copies(first: int, count: int) -> Iterator[range]:
    """Card numbers in pieces of one COPY each."""
    for start in range(first, first + count, CARDS_PER_COPY):
        yield range(start, min(start + CARDS_PER_COPY, first + count))


async def copy_cards(
    connection: "asyncpg.Connection[Any]", key_store: KeyStore, seed: Seed, numbers: range
) -> None:
    """Writes the cards of one piece of ``copies``, in one transaction."""
    codes = key_store.identification_codes(key_store.active("identification-code"))
    ac_version, ss_version = active_key_versions(key_store, seed.cipher)
    cards = [
        synthetic_card(n, codes, cipher=seed.cipher, ac_key_version=ac_version, ss_key_version=ss_version)
        for n in numbers
    ]
    rows = await connection.fetch(STATEMENTS["allocate_ids"], len(cards))
    operation_block: int = await connection.fetchval(NEXT_OPERATION_IDS)
    batch = [(CardIds(*row), card) for row, card in zip(rows, cards, strict=True)]
    # A date that is closed takes nothing more.
    business_date: date = await connection.fetchval(STATEMENTS["seed_date"], datetime.now(UTC).date())
    tables = _rows(key_store, batch, seed, operation_block, business_date)
    async with connection.transaction():
        for table, records in tables.items():
            await connection.copy_records_to_table(table, records=records, columns=COLUMNS[table].split())


def _rows(
    key_store: KeyStore,
    batch: list[tuple[CardIds, NewCard]],
    seed: Seed,
    operation_block: int,
    business_date: date,
) -> dict[str, Iterable[tuple[Any, ...]]]:
    row_maker = RowMaker(
        sealer=key_store.sealer(key_store.active("sealing")),
        blind_index=key_store.blind_index(key_store.active("blind-index")),
    )
    now = datetime.now(UTC)
    balance_minor = seed.opening_balance_minor
    ids_of_shard: dict[int, list[int]] = defaultdict(list)
    tables: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}
    for operation_id, (ids, card) in enumerate(batch, start=operation_block):
        credentials = row_maker.credentials(ids, card)
        # The PAN's index comes first.
        shard = int.from_bytes(credentials[0][0][:4]) % seed.shards
        tables["cardholders"].append((*row_maker.holder(ids, card), shard))
        tables["cards"].append((*row_maker.card(ids, card), ids.cardholder_id, shard))
        limits = (card.transaction_amount_max_minor, card.day_amount_max_minor)
        tables["card_states"].append((ids.card_id, shard, CardStatus.NORMAL, *limits))
        tables["accounts"].append((ids.account_id, ids.card_id, shard, balance_minor))
        tables["card_credentials"] += [(*row, shard) for row in credentials]
        request_id = str(uuid_utils.uuid7())
        tables["operations"].append(
            (
                *(operation_id, request_id, ids.card_id, balance_minor, now, business_date, shard),
                *(OperationKind.OPENING_BALANCE, APPROVED, PARTICIPANT, "", "00", b"", b""),
            )
        )
        source = seed.source_account_id
        tables["postings"].append(
            (operation_id, 1, source, ids.account_id, balance_minor, business_date, shard)
        )
        ids_of_shard[shard].append(operation_id)
    tables["event_batches"] = [
        (ids[0], ids[-1], len(ids), business_date, now, shard) for shard, ids in ids_of_shard.items()
    ]
    return dict(tables)
