"""Gathers what a batch decided and writes it with one array statement."""

from typing import Any

import asyncpg

from server.database.statements import load
from server.engine.operation import Batch, Operation, Outcome

PERSIST = load("server.engine")["persist"]

ACCESS_COLUMNS = 8


class BatchWriter:
    """Rows of one batch, gathered in order of decision."""

    __slots__ = ("_accesses", "_operations", "_postings")

    def __init__(self) -> None:
        self._operations: list[tuple[Any, ...]] = []
        self._postings: list[tuple[Any, ...]] = []
        self._accesses: list[tuple[Any, ...]] = []

    def add(self, operation: Operation, outcome: Outcome, batch: Batch) -> None:
        """Notes the operation row (unless it is a read), its postings and its access entry."""
        operation_id = batch.operation_id
        if operation.request_id is not None:
            self._operations.append(_operation_row(operation, outcome, batch))
        for number, posting in enumerate(outcome.postings, start=1):
            self._postings.append(
                (
                    operation_id,
                    number,
                    posting.debit_account_id,
                    posting.credit_account_id,
                    posting.amount_minor,
                )
            )
        if operation.catalogue_item is not None:
            self._accesses.append(
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

    async def write(self, connection: "asyncpg.Connection[Any]", batch: Batch, *, shard: int) -> bool:
        """Writes all rows and the changed working copies; False when there was nothing to write.

        Raises:
            asyncpg.SerializationError: a row was changed by somebody who does not hold its card.
        """
        changed_cards = [card for card in batch.cards.values() if card.changed]
        changed_accounts = [account for account in batch.accounts.values() if account.changed]
        cards = [
            (c.card_id, c.status, c.atc_highest, c.atc_window, c.day, c.day_amount_minor, c.pin_tries)
            for c in changed_cards
        ]
        accounts = [(a.account_id, a.posted_minor, a.held_minor) for a in changed_accounts]
        if not (cards or accounts or self._operations or self._accesses):
            return False
        row = await connection.fetchrow(
            PERSIST,
            shard,
            batch.business_date,
            batch.now,
            cards,
            accounts,
            self._operations,
            self._postings,
            *(zip(*self._accesses, strict=True) if self._accesses else [()] * ACCESS_COLUMNS),
            [card.place for card in changed_cards],
            [account.place for account in changed_accounts],
        )
        assert row is not None, "the statement gives one row"
        if tuple(row) != (len(cards), len(accounts)):
            # Somebody wrote without the cards' locks. Another attempt reads what it wrote.
            raise asyncpg.SerializationError("a row is not where it was read")
        return True


def _operation_row(operation: Operation, outcome: Outcome, batch: Batch) -> tuple[Any, ...]:
    money = operation.money
    if money is None:
        amount = terminal_time = stan = mti_class = merchant = None
    else:
        amount, terminal_time, stan = money.amount_minor, money.terminal_time_unix_ms, money.stan
        merchant = money.merchant_id
        # A duplicate is stored too, but the switch key stays with the first: NULLs are distinct in its index.
        mti_class = None if batch.switch_key_used else money.mti_class
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
    )
