"""The passes over the rows: each in ranges, so that neither this process nor a statement grows with the base.

All run in the one snapshot of the transaction they are given. Must never write.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import date
from typing import Any

import asyncpg

from server.database.statements import load

STATEMENTS = load("server.settlement")
ACCOUNTS_PER_RANGE = 2_000_000
OPERATIONS_PER_RANGE = 200_000
BATCHES_PER_RANGE = 50_000
FIRST_WALLET = 1_000_000
NO_END = 2**63 - 1

# What is looked at, and how many rows of it were.
Progress = Callable[[str, int], None]


async def check_rows(connection: "asyncpg.Connection[Any]", progress: Progress) -> Mapping[str, int]:
    """Counts and sums by the names of ``Reconciliation``."""
    dates = [row[0] for row in await connection.fetch(STATEMENTS["online_dates"])]
    facts: dict[str, int] = {}
    facts |= await _wallets(connection, progress)
    facts |= await _operations(connection, dates, progress)
    facts |= await _batches(connection, dates, progress)
    facts["operations_without_batch"] = facts["operations"] - facts.pop("operations_in_batches")
    progress("participants' accounts", 0)
    row = await connection.fetchrow(STATEMENTS["check_positions"], dates)
    assert row is not None, "one row"
    facts |= dict(row)
    progress("numbers of events", 0)
    facts["sequence_wrong"] = await connection.fetchval(STATEMENTS["check_sequence"])
    progress("what was taken back", 0)
    facts["adjustments_wrong"] = await connection.fetchval(STATEMENTS["check_adjustments"])
    progress("request ids", 0)
    facts["repeated_requests"] = await connection.fetchval(STATEMENTS["repeated_requests"])
    return facts


async def _wallets(connection: "asyncpg.Connection[Any]", progress: Progress) -> "Counter[str]":
    sums: Counter[str] = Counter()
    first = FIRST_WALLET
    async for start, end in _ranges(connection, "next_account_range", (), first, ACCOUNTS_PER_RANGE):
        _add(sums, await connection.fetchrow(STATEMENTS["check_wallets"], start, end))
        progress("wallets", sums["wallets"])
    return sums


async def _operations(
    connection: "asyncpg.Connection[Any]", dates: Sequence[date], progress: Progress
) -> "Counter[str]":
    sums: Counter[str] = Counter()
    for business_date in dates:
        ranges = _ranges(connection, "next_operation_range", (business_date,), 0, OPERATIONS_PER_RANGE)
        async for start, end in ranges:
            row = await connection.fetchrow(STATEMENTS["check_operations"], business_date, start, end)
            _add(sums, row)
            progress("operations", sums["operations"])
    return sums


async def _batches(
    connection: "asyncpg.Connection[Any]", dates: Sequence[date], progress: Progress
) -> "Counter[str]":
    sums: Counter[str] = Counter()
    async for start, end in _ranges(connection, "next_batch_range", (), 0, BATCHES_PER_RANGE):
        row = await connection.fetchrow(STATEMENTS["check_batches"], start, end, dates)
        assert row is not None, "one row"
        sums.update(operations_in_batches=row["operations"], batches_wrong=row["batches_wrong"])
        progress("operations in batches", sums["operations_in_batches"])
    return sums


async def _ranges(
    connection: "asyncpg.Connection[Any]", statement: str, arguments: tuple[Any, ...], first: int, size: int
) -> AsyncIterator[tuple[int, int]]:
    """Pairs of a first number and that of the next range; together they leave out nothing."""
    start: int | None = first
    while start is not None:
        end = await connection.fetchval(STATEMENTS[statement], *arguments, start, size)
        yield start, NO_END if end is None else end
        start = end


def _add(sums: "Counter[str]", row: Any) -> None:
    assert row is not None, "one row"
    sums.update(dict(row))
