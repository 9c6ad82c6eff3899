"""Ends holds whose time is over: the housekeeper's work, under the same card locks as a completion.

A completion that comes at the same moment either has the lock first, and the hold is captured, or finds it expired.
"""

from itertools import groupby
from operator import itemgetter
from typing import Any

import asyncpg

from server.database.pool import acquired
from server.database.statements import load

STATEMENTS = load("server.authorization")
# A transaction locks no more cards than a batch does.
CARDS_PER_TRANSACTION = 256


async def expire_holds(pool: "asyncpg.Pool[Any]") -> None:
    """Ends all holds that are due, in short transactions of one shard each.

    Raises:
        DatabaseUnavailableError: the database does not answer; what was committed stays.
    """
    while True:
        async with acquired(pool) as connection:
            ended = 0
            due = await connection.fetch(STATEMENTS["cards_with_due_holds"], CARDS_PER_TRANSACTION)
            for shard, rows in groupby(due, key=itemgetter(0)):
                card_ids = [row[1] for row in rows]
                async with connection.transaction():
                    await connection.fetch(STATEMENTS["lock_cards"], shard, card_ids)
                    ended += await connection.fetchval(STATEMENTS["expire_holds"], shard, card_ids)
        if not ended or len(due) < CARDS_PER_TRANSACTION:
            return
