"""The list of keys as one process knows it: read once, changed under the lock, renewed when another changed it.

Must never change keys in place: readers in other threads hold the list they began with.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from crypto.errors import CryptoError, KeyNotFoundError
from crypto.key_store.lifecycle import Material, StoredKeys, entry_of
from crypto.key_store.wrapped_file import (
    FileStamp,
    Wrapping,
    file_stamp,
    read_keys,
    write_keys,
    writer_lock,
)
from crypto.keys import KeyInfo, KeyRef

R = TypeVar("R")


class KeyList:
    """The keys of one directory under one wrapping.

    Args:
        directory: where ``keys.json`` is, or will be.
        wrapping: what its storage key is.
        on_change: called after the keys held were replaced.
    """

    def __init__(self, directory: Path, wrapping: Wrapping, *, on_change: Callable[[], None]) -> None:
        self.directory = directory
        self._wrapping = wrapping
        self._on_change = on_change
        self._lock = threading.RLock()
        self._stamp: FileStamp | None = None
        self._refused: FileStamp | None = None
        # Replaced whole, never changed in place: other threads may be reading it.
        self.keys: StoredKeys = {}

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
        """``refresh`` on meeting an unknown version: a list that cannot be read brings nothing new."""
        if file_stamp(self.directory) in (self._stamp, self._refused):
            return False
        try:
            return self.refresh()
        except CryptoError:
            return False

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
            KeyStoreUnavailableError, SealBrokenError: as ``read``; whatever ``change`` raises. Nothing is written.
        """
        with self._lock, writer_lock(self.directory):
            before = read_keys(self.directory, self._wrapping)
            keys = dict(before)
            result = change(keys)
            if keys != before:
                write_keys(self.directory, self._wrapping, keys)
            self._take(keys, file_stamp(self.directory))
        return result

    def write_first(self, keys: StoredKeys) -> None:
        """Writes the list of a new store; the caller holds the writer's lock and found none."""
        write_keys(self.directory, self._wrapping, keys)
        self._take(keys, file_stamp(self.directory))

    def _take(self, keys: StoredKeys, stamp: FileStamp | None) -> None:
        self.keys = keys
        self._stamp = stamp
        self._refused = None
        self._on_change()
