"""Asks the key store from the event loop without ever stopping it.

A store in the process answers in microseconds and is asked at once; one behind a token may block, and is asked from a
thread. What a key store refuses as a whole becomes the one operating error that callers see. Must never hold a key.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from crypto.errors import KeyStoreError
from crypto.key_store import KeyStore
from server.errors import UnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")


class KeyCalls:
    """A key store, and the way to ask it; asked by one at a time.

    Behind a token there are two queues: what holds up a card's operation (``first``) goes before what a bank asks in
    frames and what operators do.
    """

    def __init__(self, store: KeyStore) -> None:
        self.store = store
        self._thread = ThreadPoolExecutor(1, "key-store") if store.is_blocking else None
        self._is_asked = False
        self._is_told = False
        self._first: deque[asyncio.Future[None]] = deque()
        self._later: deque[asyncio.Future[None]] = deque()

    async def ask(self, function: Callable[[], T], *, first: bool = False) -> T:
        """What ``function`` gives, which calls the store.

        Raises:
            UnavailableError: the store does not answer, so that what asked fails closed.
        """
        try:
            if self._thread is None:
                result = function()
            else:
                await self._turn(self._first if first else self._later)
                try:
                    result = await asyncio.get_running_loop().run_in_executor(self._thread, function)
                finally:
                    self._pass_on()
        except KeyStoreError as error:
            # Once until it answers again: every batch of a busy worker would tell the same.
            if not self._is_told:
                log.error("key store: %s", type(error).__name__)
                self._is_told = True
            raise key_store_unavailable() from None
        self._is_told = False
        return result

    def close(self) -> None:
        """Lets the thread end."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def _turn(self, queue: "deque[asyncio.Future[None]]") -> None:
        if not self._is_asked:
            self._is_asked = True
            return
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # The turn may have come in the same moment: then it is somebody else's.
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Gives the turn to who waits longest, of the first queue if any."""
        while queue := self._first or self._later:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._is_asked = False


def key_store_unavailable() -> UnavailableError:
    """What an operation fails with when the key store does not answer."""
    return UnavailableError("KEY_STORE_UNAVAILABLE", "the key store does not answer", retry_delay_ms=500)
