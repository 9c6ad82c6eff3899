"""Asks the key store from the event loop without ever stopping it.

A store in the process answers in microseconds and is asked at once; one behind a token may block, and is asked from a
thread. What a key store refuses as a whole becomes the one operating error that callers see. Must never hold a key.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from crypto.errors import KeyStoreError
from crypto.key_store import KeyStore
from server.errors import UnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")


class KeyCalls:
    """A key store, and the way to ask it; asked by one thread at a time."""

    def __init__(self, store: KeyStore) -> None:
        self.store = store
        self._thread = ThreadPoolExecutor(1, "key-store") if store.is_blocking else None

    async def ask(self, function: Callable[[], T]) -> T:
        """What ``function`` gives, which calls the store.

        Raises:
            UnavailableError: the store does not answer, so that what asked fails closed.
        """
        try:
            if self._thread is None:
                return function()
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except KeyStoreError as error:
            log.error("key store: %s", type(error).__name__)
            raise key_store_unavailable() from None

    def close(self) -> None:
        """Lets the thread end."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)


def key_store_unavailable() -> UnavailableError:
    """What an operation fails with when the key store does not answer."""
    return UnavailableError("KEY_STORE_UNAVAILABLE", "the key store does not answer", retry_delay_ms=500)
