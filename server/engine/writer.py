"""Gathers what a batch decided and writes it with one array statement for each shard."""

import uuid
from collections.abc import Sequence
from typing import Any

import asyncpg

from server.database.statements import load
from server.engine.operation import Account, Batch, Operation, OperationKind, Outcome, Tombstone
from server.engine.request_log import tombstone_switch_key

PERSIST = load("server.engine")["persist"]
OPEN_ACCOUNTS = load("server.engine")["open_accounts"]

ACCESS_COLUMNS = 8


class _ShardRows:
    """Rows of one shard, gathered in order of decision."""

    __slots__ = ("accesses", "operations", "postings")

    def __init__(self) -> None:
        self.operations: list[tuple[Any, ...]] = []
        self.postings: list[tuple[Any, ...]] = []
        self.accesses: list[tuple[Any, ...]] = []


class BatchWriter:
    """Rows of one batch, by shard."""

    __slots__ = ("_rows",)

    def __init__(self, shards: tuple[int, ...]) -> None:
        """``shards`` are all that the batch locks rows of."""
        self._rows = {shard: _ShardRows() for shard in shards}

    def add(self, operation: Operation, outcome: Outcome, batch: Batch) -> None:
        """Notes the operation row (unless it is a read), its postings and its access entry."""
        rows = self._rows[operation.shard]
        operation_id = batch.operation_id
        if operation.request_id is not None:
            rows.operations.append(_operation_row(operation, outcome, batch))
        for number, posting in enumerate(outcome.postings, start=1):
            rows.postings.append(
                (
                    operation_id,
                    number,
                    posting.debit_account_id,
                    posting.credit_account_id,
                    posting.amount_minor,
                )
            )
        if operation.catalogue_item is not None:
            rows.accesses.append(
                (
                    operation.participant_id,
                    operation.terminal_id,
                    operation.kind,
                    operation.request_id,
                    operation.card_id,
                    operation.catalogue_item,
                    operation.catalogue_item_version,
                    outcome.reason,
                )
            )

    def add_tombstone(self, tombstone: Tombstone, reversal: Operation, *, operation_id: int) -> None:
        """Notes a row in the place of the original of ``reversal``; its number is one of its own."""
        self._rows[reversal.shard].operations.append(
            (
                operation_id,
                tombstone.request_id,
                reversal.card_id,
                *(None, None, tombstone.stan, OperationKind.TOMBSTONE, tombstone.mti_class, tombstone.reason),
                *(reversal.participant_id, tombstone.terminal_id, None, tombstone.response_code),
                *(b"", tombstone.response),
                *(None, None, None, None, None),
                tombstone_switch_key(tombstone, reversal),
            )
        )

    async def write(self, connection: "asyncpg.Connection[Any]", batch: Batch) -> None:
        """Writes all rows and the changed working copies.

        Raises:
            asyncpg.SerializationError: a row was changed by somebody who does not hold its card.
        """
        for shard, rows in self._rows.items():
            cards = [card for card in batch.cards.values() if card.changed and card.shard == shard]
            accounts = [a for a in batch.accounts.values() if a.changed and a.shard == shard]
            opened = [account for account in accounts if account.new_for_card_id is not None]
            if not (cards or accounts or rows.operations or rows.accesses):
                continue
            if opened:
                await _open_accounts(connection, opened, shard=shard)
                accounts = [account for account in accounts if account.new_for_card_id is None]
            operations = rows.operations
            row = await connection.fetchrow(
                PERSIST,
                shard,
                batch.business_date,
                batch.now,
                [(c.card_id, c.status, c.atc_highest, c.atc_window, c.pin_tries, c.usage) for c in cards],
                [(a.account_id, a.posted_minor, a.held_minor) for a in accounts],
                operations,
                rows.postings,
                *(zip(*rows.accesses, strict=True) if rows.accesses else [()] * ACCESS_COLUMNS),
                operations[0][0] if operations else 0,
                operations[-1][0] if operations else 0,
                len(operations),
                [card.place for card in cards],
                [account.place for account in accounts],
            )
            assert row is not None, "the statement gives one row"
            if tuple(row) != (len(cards), len(accounts)):
                # Somebody wrote without the cards' locks. Another attempt reads what it wrote.
                raise asyncpg.SerializationError("a row is not where it was read")


async def _open_accounts(
    connection: "asyncpg.Connection[Any]", accounts: Sequence[Account], *, shard: int
) -> None:
    columns = zip(
        *((a.account_id, a.new_for_card_id, a.posted_minor, a.held_minor) for a in accounts), strict=True
    )
    await connection.execute(OPEN_ACCOUNTS, shard, *columns)


def new_request_id() -> str:
    """A request id for a row that no request names."""
    return str(uuid.uuid4())


def _operation_row(operation: Operation, outcome: Outcome, batch: Batch) -> tuple[Any, ...]:
    money = operation.money
    if money is None:
        amount = terminal_time = stan = mti_class = merchant = channel = flags = key = None
    else:
        amount, terminal_time, stan = money.amount_minor, money.terminal_time_unix_ms, money.stan
        merchant, channel, flags = money.merchant_id, money.channel, money.flags
        mti_class = money.mti_class
        # A duplicate is stored too, but the switch key stays with the first: NULLs are distinct in its index.
        key = money.switch_key if batch.switch_key_holder is None else None
    return (
        batch.operation_id,
        operation.request_id,
        operation.card_id,
        amount,
        terminal_time,
        stan,
        operation.kind,
        mti_class,
        outcome.reason,
        operation.participant_id,
        operation.terminal_id,
        merchant,
        outcome.response_code,
        operation.request_digest,
        outcome.message.SerializeToString() if outcome.stored is None else outcome.stored,
        operation.account_id if money is not None else None,
        outcome.approved_minor,
        outcome.original_operation_id,
        channel,
        flags,
        key,
    )
