"""Closes business dates after the cut-over, each once, when nothing can be added to them any more.

Whoever writes operations of a date holds the date's lock to the end of its transaction; closing takes that lock alone
and marks the date in the same transaction. A later writer finds it closed, is rolled back, and decides again for the
next date: see ``require_open_day`` in the schema. So neither a clock nor a grace is needed for the proof; the grace
only keeps closing out of the way of the last operations.
"""

import logging
from datetime import date, timedelta
from typing import Any

import asyncpg

from server.database.statements import load
from server.engine.business_calendar import BusinessCalendar
from server.settlement.positions import roll_up_step
from server.settlement.sequencer import BATCHES_MAX

log = logging.getLogger(__name__)

STATEMENTS = load("server.settlement")
GRACE_S = 60
LOCK_TIMEOUT = "2s"
ATTEMPTS_MAX = 5


async def due_days(connection: "asyncpg.Connection[Any]", calendar: BusinessCalendar) -> list[date]:
    """Dates with events that ended at least ``GRACE_S`` ago and are not closed, ascending."""
    rows = await connection.fetch(STATEMENTS["open_days"], float(GRACE_S))
    return [
        row["business_date"]
        for row in rows
        if row["business_date"] < calendar.business_date_of(row["now"] - timedelta(seconds=GRACE_S))
    ]


async def close_day(connection: "asyncpg.Connection[Any]", business_date: date) -> bool:
    """Closes a date for ever; False when its last writers could not be waited for. The next turn tries again.

    Locks: the date's, alone; no card's.
    """
    for _ in range(ATTEMPTS_MAX):
        await connection.fetchval(STATEMENTS["sequence_events"], BATCHES_MAX, True)
        while await roll_up_step(connection):
            pass
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                await connection.execute(STATEMENTS["lock_day"], business_date)
                closed = await connection.fetchval(STATEMENTS["close_day"], business_date)
        except asyncpg.LockNotAvailableError:
            continue
        if closed is not None:
            log.info("business date closed", extra={"business_date": f"{business_date:%Y%m%d}"})
            return True
    return False
