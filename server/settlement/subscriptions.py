"""Subscriptions to events: windows of events as they come, and a sign of life while none come.

A subscription keeps nothing but its place: after any break the subscriber goes on after the last number it was told.
What is read ahead is one window, and the next is read when the subscriber has taken this one.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg

from server import telemetry
from server.errors import MalformedFieldError, OverloadedError
from server.settlement.event_feed import EventFilter, EventWindow, RecordedEvent, read_window
from server.settlement.sequencer import EventHead

EVENTS_PER_MESSAGE_MAX = 256
SUBSCRIPTIONS_PER_CALLER_MAX = 4
HEARTBEAT_S = 5.0
# How long a stream may not look whether it may go on.
WAIT_S = 0.5
READS_AT_ONCE_MAX = 2
# Batches are found by the index of operation ids; without statistics, as in every new partition, the planner would read
# partitions whole.
INDEXED_READS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


@dataclass(frozen=True, slots=True)
class Portion:
    """Events for one message, and the place to go on after."""

    events: tuple[RecordedEvent, ...]
    through_sequence: int


class Subscriptions:
    """The open subscriptions of a worker."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        """``pool`` serves nothing else: see ``INDEXED_READS``."""
        self._pool = pool
        self._head = EventHead(pool)
        self._open: Counter[str] = Counter()
        self._reads = asyncio.Semaphore(READS_AT_ONCE_MAX)

    async def stop(self) -> None:
        """Ends what runs for subscriptions; none may be open."""
        await self._head.stop()

    async def portions(
        self, *, after_sequence: int, shown: EventFilter, subscriber_id: str, check: Callable[[], None]
    ) -> AsyncIterator[Portion]:
        """What to send, without an end.

        Args:
            check: called before each window and at least every ``WAIT_S``; raises when the stream must end.
        Raises:
            MalformedFieldError: no event has a number so high yet.
            OverloadedError: the subscriber has as many subscriptions at this worker as it may.
            StateConflictError: events after this number are archived.
            DatabaseUnavailableError: the database does not answer.
        """
        clock = asyncio.get_running_loop().time
        with self._place(subscriber_id):
            head, position, told_at_s = await self._head.refresh(), after_sequence, clock()
            if position > head:
                raise MalformedFieldError("after_sequence", "must be the number of an event, or 0")
            while True:
                check()
                if head > position:
                    window = await self._read(position, head, shown)
                    for portion in _portions(window):
                        yield portion
                        telemetry.EVENTS_SENT.inc(len(portion.events))
                        told_at_s = clock()
                    position = window.through_sequence
                else:
                    head = await self._head.beyond(position, wait_s=WAIT_S)
                if clock() - told_at_s >= HEARTBEAT_S:
                    yield Portion((), position)
                    told_at_s = clock()

    async def _read(self, position: int, head: int, shown: EventFilter) -> EventWindow:
        async with self._reads:
            return await read_window(self._pool, after_sequence=position, head_sequence=head, shown=shown)

    @contextlib.contextmanager
    def _place(self, subscriber_id: str) -> Iterator[None]:
        if self._open[subscriber_id] >= SUBSCRIPTIONS_PER_CALLER_MAX:
            raise OverloadedError("too many subscriptions of this caller", retry_delay_ms=1_000)
        self._open[subscriber_id] += 1
        telemetry.SUBSCRIPTIONS.inc()
        try:
            yield
        finally:
            telemetry.SUBSCRIPTIONS.dec()
            self._open[subscriber_id] -= 1
            if not self._open[subscriber_id]:
                del self._open[subscriber_id]


def _portions(window: EventWindow) -> Iterator[Portion]:
    """The window in messages; the last goes as far as the window does. One without events has none."""
    events = window.events
    for start in range(0, len(events), EVENTS_PER_MESSAGE_MAX):
        part = tuple(events[start : start + EVENTS_PER_MESSAGE_MAX])
        is_last = start + EVENTS_PER_MESSAGE_MAX >= len(events)
        yield Portion(part, window.through_sequence if is_last else part[-1].sequence)
