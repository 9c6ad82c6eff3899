"""Work that runs to its end when the caller hangs up: what is begun half-way would have to be mended."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class ShieldedTasks:
    """Runs work in tasks of its own, and holds them as long as they run."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives; cancelled, it leaves the work to end by itself."""
        task = asyncio.create_task(work, name="key-change")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)
