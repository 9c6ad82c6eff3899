"""Group commit: one database transaction for all that arrived while the last one was out.

This module holds the bounded wait queues; `lane.py` runs the batches. Nothing here runs in a handler's task, so a
client that goes away neither loses nor doubles a commit.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from server.engine.lane import Lane
from server.engine.operation import Operation, Ticket
from server.engine.preparation import prepare_or_settle
from server.engine.transaction import LaneSettings
from server.errors import OverloadedError, UnavailableError


class GroupCommit:
    """The engine of one worker: two bounded wait queues and the lanes that empty them."""

    def __init__(self, *, lanes: int, batch_max: int, queue_max: int, lane_settings: LaneSettings) -> None:
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._queue: deque[Operation] = deque()
        self._urgent: deque[Operation] = deque()
        self._arrived = asyncio.Event()
        self._draining = False
        # Operations for which a key store that may block is being asked; they come back to the queue's head.
        self._aside = 0
        self._asking: set[asyncio.Task[None]] = set()
        # Lanes that are not waiting for work; each begins as one of them.
        self._busy = lanes
        self._lanes = [
            Lane(lane_settings, self._arrived.set, self._prepare_aside, self._put_back) for _ in range(lanes)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(lane.run(self._take, self._has_more), name=f"lane-{number}")
            for number, lane in enumerate(self._lanes)
        ]

    @property
    def waiting(self) -> int:
        """Operations in the queues."""
        return len(self._urgent) + len(self._queue) + self._aside

    def submit(self, operations: Sequence[Operation]) -> "asyncio.Future[list[Any]]":
        """Queues operations, all urgent or none; the future gives their results in order once all are settled.

        Raises:
            OverloadedError: the queue has no room for all of them; none was queued.
            UnavailableError: the worker is draining.
        """
        if self._draining:
            raise UnavailableError("DRAINING", "this worker is stopping", retry_delay_ms=100)
        queue = self._urgent if operations[0].urgent else self._queue
        if len(queue) + self._aside + len(operations) > self._queue_max:
            raise OverloadedError("the queue is full")
        ticket = Ticket(len(operations))
        for index, operation in enumerate(operations):
            operation.ticket = ticket
            operation.index = index
        queue.extend(operations)
        if self._is_batch(self._busy):
            self._arrived.set()
        return ticket.done

    async def drain(self) -> None:
        """Refuses new operations, finishes those that wait, and closes the lanes' connections."""
        self._draining = True
        self._arrived.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _prepare_aside(self, operations: Sequence[Operation]) -> None:
        """Has the key store asked while no lane waits for it: what needs no key, a loss report first, goes on."""

        async def ask() -> None:
            await prepare_or_settle(operations)
            self._aside -= len(operations)
            # What could not be prepared was settled with its error.
            prepared = [operation for operation in operations if operation.prepared]
            self._put_back(prepared)

        self._aside += len(operations)
        task = asyncio.create_task(ask(), name="ask-keys")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _put_back(self, operations: Sequence[Operation]) -> None:
        """Queues operations again, in front of all others and in their order."""
        self._queue.extendleft(reversed(operations))
        self._arrived.set()

    def _is_batch(self, busy: int) -> bool:
        """Whether what waits is a batch for an idle lane while ``busy`` others are out.

        A lane that is alone takes anything, and one that is held up does not count. A further one takes only half a
        batch or more, or what is urgent: small batches side by side would cost each of their operations more than the
        wait for the next.
        """
        waiting = len(self._queue)
        busy -= sum(lane.in_trouble for lane in self._lanes)
        return bool(
            self._urgent or (waiting and (busy <= 0 or self._draining or waiting * 2 >= self._batch_max))
        )

    def _has_more(self) -> bool:
        """Whether the lane that asks, which is busy, would take a batch at once."""
        return self._is_batch(self._busy - 1)

    async def _take(self) -> list[Operation] | None:
        """Waits for operations and takes up to ``batch_max``, and the rest of the last frame; None when drained."""
        self._busy -= 1
        while not self._is_batch(self._busy):
            if self._draining and not self.waiting:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        self._busy += 1
        # What is urgent goes alone: nothing beside it can hold it up.
        queue = self._urgent or self._queue
        taken = [queue.popleft() for _ in range(min(len(queue), self._batch_max))]
        # What was submitted together stays together: its operations may follow one another.
        while queue and queue[0].ticket is taken[-1].ticket:
            taken.append(queue.popleft())
        return taken
