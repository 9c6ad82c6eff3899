"""Positions of participants' accounts: rolled up behind the traffic, read with what is not rolled up yet.

These accounts have no row that operations would queue for; their balance is the sum of postings. Every numbered batch
is added once, because sums and watermark change in one transaction. Must never lock what operations lock.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from typing import Any

import asyncpg

from server.database.pool import acquired
from server.database.statements import load
from server.errors import UnavailableError

STATEMENTS = load("server.settlement")
BATCHES_PER_STEP = 500
# One turn of the housekeeper; what is left waits for the next.
STEPS_MAX = 200


class AccountUse(IntEnum):
    """What a participant's account is for; as on the wire."""

    SETTLEMENT = 1
    SUSPENSE = 2
    FUND = 3


_FIRST_ACCOUNT = {AccountUse.SETTLEMENT: 0, AccountUse.SUSPENSE: 400_000, AccountUse.FUND: 700_000}


def accounts_of(settlement_account_id: int) -> dict[int, AccountUse]:
    """The accounts of the participant with this settlement account (1 to 299999), ascending."""
    return {first + settlement_account_id: use for use, first in _FIRST_ACCOUNT.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What moved on an account in a business date, in 分."""

    account_id: int
    opening_minor: int
    debit_minor: int
    credit_minor: int
    posting_count: int

    @property
    def closing_minor(self) -> int:
        return self.opening_minor + self.credit_minor - self.debit_minor


@dataclass(frozen=True, slots=True)
class PositionReading:
    """Positions by ascending account, the number of the last event in them, and whether the date is closed."""

    positions: Sequence[Position]
    through_sequence: int
    is_closed: bool


async def roll_up_step(connection: "asyncpg.Connection[Any]", batches_max: int = BATCHES_PER_STEP) -> int:
    """Adds the next batches, in a transaction of its own; how many numbers the watermark moved.

    Raises:
        asyncpg.QueryCanceledError: even one batch takes longer than a statement may.
    Locks: the watermark.
    """
    try:
        async with connection.transaction():
            before: int = await connection.fetchval(STATEMENTS["lock_watermark"])
            after: int = await connection.fetchval(STATEMENTS["roll_up_positions"], before, batches_max)
    except asyncpg.QueryCanceledError:
        if batches_max == 1:
            raise
        return await roll_up_step(connection, batches_max // 2)
    return after - before


@contextlib.asynccontextmanager
async def indexed(connection: "asyncpg.Connection[Any]") -> AsyncIterator[None]:
    """A reading transaction that goes batch by batch by index: without statistics the planner would read partitions
    whole.
    """
    async with connection.transaction(readonly=True):
        for way in ("seqscan", "hashjoin", "mergejoin"):
            await connection.execute(f"SET LOCAL enable_{way} = off")
        yield


async def roll_up(pool: "asyncpg.Pool[Any]") -> None:
    """The housekeeper's job: adds what is numbered."""
    async with acquired(pool) as connection:
        for _ in range(STEPS_MAX):
            if not await roll_up_step(connection):
                return


async def read_position(
    connection: "asyncpg.Connection[Any]", account_ids: Sequence[int], business_date: date
) -> PositionReading:
    """The positions of accounts, which must be at least one.

    Raises:
        UnavailableError: so much is not rolled up yet that reading it takes longer than a statement may.
    """
    try:
        async with indexed(connection):
            rows = await connection.fetch(STATEMENTS["read_position"], account_ids, business_date)
    except asyncpg.QueryCanceledError:
        raise UnavailableError(
            "POSITION_BEHIND", "positions are being caught up with", retry_delay_ms=5_000
        ) from None
    positions = [
        Position(
            account_id=row["account_id"],
            opening_minor=row["opening_minor"],
            debit_minor=row["debit_minor"],
            credit_minor=row["credit_minor"],
            posting_count=row["posting_count"],
        )
        for row in rows
    ]
    return PositionReading(positions, rows[0]["through_sequence"], rows[0]["is_closed"])
