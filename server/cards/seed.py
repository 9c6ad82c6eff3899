"""Loads synthetic cards in bulk by COPY, each with an opening balance that is posted like any other money."""

import asyncio
from collections.abc import Iterable
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
    codes = key_store.identification_codes(key_store.active("identification-code"))
    ac_version, ss_version = active_key_versions(key_store, cipher)
    await connection.execute(STATEMENTS["seed_participant"])
    source: int = await connection.fetchval(STATEMENTS["seed_account"])
    today = datetime.now(UTC).date()
    for start in range(first, first + count, CARDS_PER_COPY):
        numbers = range(start, min(start + CARDS_PER_COPY, first + count))
        cards = [
            synthetic_card(n, codes, cipher=cipher, ac_key_version=ac_version, ss_key_version=ss_version)
            for n in numbers
        ]
        rows = await connection.fetch(STATEMENTS["allocate_ids"], len(cards))
        operation_block: int = await connection.fetchval(NEXT_OPERATION_IDS)
        batch = [(CardIds(*row), card) for row, card in zip(rows, cards, strict=True)]
        tables = _rows(key_store, batch, opening_balance_minor, source, operation_block, today, shards)
        async with connection.transaction():
            for table, records in tables.items():
                await connection.copy_records_to_table(table, records=records, columns=COLUMNS[table].split())
        await asyncio.sleep(0)
    for table in COLUMNS:
        await connection.execute(f"ANALYZE {table}")


def _rows(
    key_store: KeyStore,
    batch: list[tuple[CardIds, NewCard]],
    balance_minor: int,
    source: int,
    operation_block: int,
    today: date,
    shards: int,
) -> dict[str, Iterable[tuple[Any, ...]]]:
    row_maker = RowMaker(
        sealer=key_store.sealer(key_store.active("sealing")),
        blind_index=key_store.blind_index(key_store.active("blind-index")),
    )
    now = datetime.now(UTC)
    tables: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}
    for operation_id, (ids, card) in enumerate(batch, start=operation_block):
        credentials = row_maker.credentials(ids, card)
        # The PAN's index comes first.
        shard = int.from_bytes(credentials[0][0][:4]) % shards
        tables["cardholders"].append((*row_maker.holder(ids, card), shard))
        tables["cards"].append((*row_maker.card(ids, card), ids.cardholder_id, shard))
        limits = (card.transaction_amount_max_minor, card.day_amount_max_minor)
        tables["card_states"].append((ids.card_id, shard, CardStatus.NORMAL, *limits))
        tables["accounts"].append((ids.account_id, ids.card_id, shard, balance_minor))
        tables["card_credentials"] += [(*row, shard) for row in credentials]
        request_id = str(uuid_utils.uuid7())
        tables["operations"].append(
            (
                *(operation_id, request_id, ids.card_id, balance_minor, now, today, shard),
                *(OperationKind.OPENING_BALANCE, APPROVED, PARTICIPANT, "", "00", b"", b""),
            )
        )
        tables["postings"].append((operation_id, 1, source, ids.account_id, balance_minor, today, shard))
    return dict(tables)
