"""The storage key of the software key store, in a file of its own, and wrapping under it.

Whoever reads ``storage.key`` and ``keys.json`` has every key: that is what a token is for. Must never leave the
file readable by others.
"""

import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from crypto.errors import KeyStoreUnavailableError, SealBrokenError
from crypto.key_store.wrapped_file import Sealed, read_private, write_whole
from crypto.keys import Cipher, Key, KeyUsage
from crypto.sealing import open_sealed, seal

STORAGE_KEY_FILE = "storage.key"
_LIST_SEAL_LABEL = b"onecard key list"


class FileWrapping:
    """Wraps with SM4-GCM under a storage key in this process; see ``wrapped_file.Wrapping``."""

    def __init__(self, storage_key: Key) -> None:
        self._storage_key = storage_key

    @property
    def facts(self) -> dict[str, str]:
        """See ``Wrapping.facts``; none, as in the first lists ever written."""
        return {}

    def wrap(self, values: Sequence[Sealed]) -> list[bytes]:
        """See ``Wrapping.wrap``."""
        return [seal(self._storage_key, value, aad=aad) for value, aad in values]

    def unwrap(self, wrapped: Sequence[Sealed]) -> list[bytes | None]:
        """See ``Wrapping.unwrap``."""
        return [self._open(value, aad) for value, aad in wrapped]

    def seal_list(self, content: bytes) -> str:
        """See ``Wrapping.seal_list``."""
        # A key of its own under the storage key, so that no key serves two algorithms.
        sealing_key = HMAC(self._storage_key.value, hashes.SM3())
        sealing_key.update(_LIST_SEAL_LABEL)
        context = HMAC(sealing_key.finalize(), hashes.SM3())
        context.update(content)
        return context.finalize().hex()

    def check_list(self, content: bytes, list_seal: str) -> None:
        """See ``Wrapping.check_list``."""
        if not hmac.compare_digest(list_seal.encode(), self.seal_list(content).encode()):
            raise SealBrokenError("the list's seal is broken")

    def _open(self, wrapped: bytes, aad: bytes) -> bytes | None:
        try:
            return open_sealed(self._storage_key, wrapped, aad=aad)
        except SealBrokenError:
            return None


def write_storage_key(directory: Path) -> Key:
    """Draws the storage key of a new store."""
    value = secrets.token_bytes(16)
    write_whole(directory / STORAGE_KEY_FILE, value.hex().encode() + b"\n")
    return Key(Cipher.SM4, KeyUsage.STORAGE, value)


def read_storage_key(directory: Path) -> Key:
    """The storage key of an existing store.

    Raises:
        KeyStoreUnavailableError: absent, open to others, or malformed.
    """
    path = directory / STORAGE_KEY_FILE
    try:
        return Key(Cipher.SM4, KeyUsage.STORAGE, bytes.fromhex(read_private(path).decode("ascii").strip()))
    except ValueError:
        raise KeyStoreUnavailableError(f"key store: {path} is not a storage key") from None
