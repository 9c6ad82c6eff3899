"""Numbers events after their commit, and tells a worker's subscriptions how far they are numbered.

Whoever waits for events numbers them too: a subscription must not wait for the housekeeper, nor the housekeeper for a
subscriber. Must never number inside another transaction: see ``sequence_events`` in the schema.
"""

import asyncio
import contextlib
import logging
from typing import Any

import asyncpg

from server.database.pool import acquired
from server.database.statements import load
from server.errors import DatabaseUnavailableError, OneCardError

log = logging.getLogger(__name__)

SEQUENCE_EVENTS = load("server.settlement")["sequence_events"]

# One statement numbers so many at most, and so is short.
BATCHES_MAX = 5_000
PERIOD_S = 0.1
# The housekeeper's turn: whoever waits for events looks more often by itself.
IDLE_PERIOD_S = 0.5
# Longer than a short statement may take before a waiting subscription is told that the database is gone.
PATIENCE_S = 5.0


async def sequence_events(pool: "asyncpg.Pool[Any]") -> int:
    """Numbers what is committed; the number of the last event.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    async with acquired(pool) as connection:
        head: int = await connection.fetchval(SEQUENCE_EVENTS, BATCHES_MAX, False)
    return head


async def keep_sequencing(pool: "asyncpg.Pool[Any]") -> None:
    """The housekeeper's job, twice a second."""
    await sequence_events(pool)


async def sequence_stragglers(pool: "asyncpg.Pool[Any]") -> None:
    """The housekeeper's job, now and then: finds what a clock that went backwards has hidden from the other."""
    async with acquired(pool) as connection:
        await connection.fetchval(SEQUENCE_EVENTS, BATCHES_MAX, True)


class EventHead:
    """The number of the last event, as far as this worker knows; looked at while somebody waits, and only then."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool
        self._moved = asyncio.Condition()
        self._waiting = 0
        self._looking: asyncio.Task[None] | None = None
        self._failure: OneCardError | None = None
        self.sequence = 0

    async def refresh(self) -> int:
        """Looks now; the number of the last event.

        Raises:
            DatabaseUnavailableError: the database does not answer.
        """
        self.sequence = max(self.sequence, await sequence_events(self._pool))
        return self.sequence

    async def beyond(self, sequence: int, *, wait_s: float) -> int:
        """Waits until an event comes after ``sequence``, or for ``wait_s``; the number of the last event.

        Raises:
            DatabaseUnavailableError: the database does not answer.
        """
        if self.sequence > sequence:
            return self.sequence
        self._waiting += 1
        if self._looking is None or self._looking.done():
            self._failure = None
            self._looking = asyncio.create_task(self._look(), name="event-head")
        try:
            async with self._moved:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._moved.wait_for(lambda: self.sequence > sequence or self._failure)
        finally:
            self._waiting -= 1
        if self.sequence <= sequence and self._failure is not None:
            raise self._failure
        return self.sequence

    async def stop(self) -> None:
        """Ends the looking."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    async def _look(self) -> None:
        while self._waiting and self._failure is None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self.refresh()
            except OneCardError as error:
                self._failure = error
            except Exception as error:
                log.warning("events were not numbered", exc_info=error)
                self._failure = DatabaseUnavailableError()
            async with self._moved:
                self._moved.notify_all()
            await asyncio.sleep(PERIOD_S)
