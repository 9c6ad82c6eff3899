"""Small tables kept in memory: read at start, then again every second, by the worker that needs them.

When the database is gone, what was read last stays in force; the decision itself fails anyway.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

PERIOD_S = 1.0


class PeriodicReader:
    """Calls ``read`` once at start, where its errors are the starter's, and then every second."""

    def __init__(self, name: str, read: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._read = read
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._read()
        self._task = asyncio.create_task(self._keep_reading(), name=f"read {self._name}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self._read()
            except Exception as error:
                # Whatever it was: a reader that ends here would leave withdrawn grants in force for ever.
                log.warning("%s not read: %s", self._name, type(error).__name__)
