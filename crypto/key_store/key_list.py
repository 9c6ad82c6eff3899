"""The list of keys as one process knows it: read once, changed under the lock, renewed when another changed it.

Must never change keys in place: readers in other threads hold the list they began with.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from crypto.errors import CryptoError, KeyNotFoundError, KeyStoreUnavailableError
from crypto.key_store.lifecycle import USABLE_STATES, Material, StoredKeys, entry_of
from crypto.key_store.wrapped_file import (
    FileStamp,
    Wrapping,
    file_stamp,
    read_keys,
    write_keys,
    writer_lock,
)
from crypto.keys import KeyInfo, KeyRef, KeyState

R = TypeVar("R")


class KeyList:
    """The keys of one directory under one wrapping.

    Args:
        directory: where ``keys.json`` is, or will be.
        wrapping: what its storage key is.
        is_blocking: whether the wrapping may wait for something outside this process.
        on_change: called after the keys held were replaced.
    """

    def __init__(
        self, directory: Path, wrapping: Wrapping, *, is_blocking: bool, on_change: Callable[[], None]
    ) -> None:
        self.directory = directory
        self._is_blocking = is_blocking
        self._wrapping = wrapping
        self._on_change = on_change
        self._lock = threading.RLock()
        self._stamp: FileStamp | None = None
        self._refused: FileStamp | None = None
        # Replaced whole, never changed in place: other threads may be reading it.
        self.keys: StoredKeys = {}
        # Names are looked up far more often than the list changes; replaced whole like the keys, and after them.
        self.active: dict[str, KeyRef] = {}
        self.usable: dict[str, tuple[KeyRef, ...]] = {}

    def read(self) -> None:
        """Takes over what the file says now.

        Raises:
            KeyStoreUnavailableError, SealBrokenError: the keys held so far stay in force.
        """
        with self._lock:
            # The stamp first: a list replaced in between is then read again, never missed.
            stamp = file_stamp(self.directory)
            try:
                keys = read_keys(self.directory, self._wrapping)
            except CryptoError:
                self._refused = stamp
                raise
            self._take(keys, stamp)

    def refresh(self) -> bool:
        """Reads the list again when its file is another one than was read last; True when it was.

        Costs one ``stat`` otherwise. Raises as ``read``.
        """
        if file_stamp(self.directory) == self._stamp:
            return False
        with self._lock:
            if file_stamp(self.directory) == self._stamp:
                return False
            self.read()
            return True

    def renew(self) -> bool:
        """``refresh`` on meeting a key that is unknown, or in the wrong state: another process may have changed it.

        Brings nothing new when the list cannot be read. Never waits: not for who holds the lock, who may be writing,
        and on an event loop not for a token either; the next ``refresh`` then finds what this one left.
        """
        if file_stamp(self.directory) in (self._stamp, self._refused):
            return False
        if (self._is_blocking and _is_on_event_loop()) or not self._lock.acquire(blocking=False):
            return False
        try:
            return self.refresh()
        except CryptoError:
            return False
        finally:
            self._lock.release()

    def entry(self, ref: KeyRef) -> tuple[KeyInfo, Material]:
        """A key's description and where its value is.

        Raises:
            KeyNotFoundError: no such key, also not in what another process wrote a moment ago.
        """
        try:
            return self.keys[ref]
        except KeyError:
            if not self.renew():
                raise KeyNotFoundError(f"no key {ref.name} version {ref.version}") from None
            return entry_of(self.keys, ref)

    def change(self, change: Callable[[StoredKeys], R]) -> R:
        """Applies a change to what the file says now, not to what this process read earlier.

        Raises:
            KeyStoreUnavailableError, SealBrokenError: as ``read``, or it cannot be written; whatever ``change``
                raises. Nothing is written, unless the very last step failed: ``read`` tells.
        """
        with self._lock:
            try:
                with writer_lock(self.directory):
                    before = read_keys(self.directory, self._wrapping)
                    keys = dict(before)
                    result = change(keys)
                    if keys != before:
                        write_keys(self.directory, self._wrapping, keys)
                    self._take(keys, file_stamp(self.directory))
            except OSError as error:
                raise self._not_written(error) from None
        return result

    def write_first(self, keys: StoredKeys) -> None:
        """Writes the list of a new store; the caller holds the writer's lock and found none.

        Raises:
            KeyStoreUnavailableError: it cannot be written.
        """
        try:
            write_keys(self.directory, self._wrapping, keys)
        except OSError as error:
            raise self._not_written(error) from None
        self._take(keys, file_stamp(self.directory))

    def _take(self, keys: StoredKeys, stamp: FileStamp | None) -> None:
        usable: dict[str, list[KeyRef]] = {}
        for ref, (info, _) in sorted(keys.items()):
            if info.state in USABLE_STATES:
                usable.setdefault(ref.name, []).append(ref)
        self.keys = keys
        self.active = {ref.name: ref for ref, (info, _) in keys.items() if info.state is KeyState.ACTIVE}
        self.usable = {name: tuple(refs) for name, refs in usable.items()}
        self._stamp = stamp
        self._refused = None
        self._on_change()

    def _not_written(self, error: OSError) -> KeyStoreUnavailableError:
        return KeyStoreUnavailableError(f"key store: cannot write {self.directory}: {error.strerror}")


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
