"""Wrapping under a storage key that never leaves its token: AES-256-GCM, computed there.

Must never take a lost token for a changed value, or the other way round.
"""

import hashlib
import hmac
from collections.abc import Sequence
from functools import partial

from pkcs11.exceptions import PKCS11Error

from crypto.errors import SealBrokenError
from crypto.key_store.token_connection import TokenConnection
from crypto.key_store.token_objects import TokenObjects
from crypto.key_store.wrapped_file import Sealed

WRAPPING = "pkcs11-aes-gcm"
# Values in one call, so that a slow token is not taken for a lost one.
_VALUES_PER_CALL = 16
_LIST_AAD = b"onecard key list"


class TokenWrapping:
    """See ``wrapped_file.Wrapping``; ``storage_id`` is the CKA_ID of the storage key."""

    def __init__(self, connection: TokenConnection, storage_id: bytes) -> None:
        self._connection = connection
        self._storage_id = storage_id

    @property
    def facts(self) -> dict[str, str]:
        """See ``Wrapping.facts``."""
        return {"wrapping": WRAPPING, "storage_key_id": self._storage_id.hex()}

    def wrap(self, values: Sequence[Sealed]) -> list[bytes]:
        """See ``Wrapping.wrap``."""
        wrapped: list[bytes] = []
        for start in range(0, len(values), _VALUES_PER_CALL):
            some = values[start : start + _VALUES_PER_CALL]
            wrapped += self._connection.call(partial(self._seal, some))
        return wrapped

    def unwrap(self, wrapped: Sequence[Sealed]) -> list[bytes | None]:
        """See ``Wrapping.unwrap``."""
        values: list[bytes | None] = []
        for start in range(0, len(wrapped), _VALUES_PER_CALL):
            some = wrapped[start : start + _VALUES_PER_CALL]
            values += self._connection.call(partial(self._open, some))
        if None in values:
            self._connection.probe()
        return values

    def seal_list(self, content: bytes) -> str:
        """See ``Wrapping.seal_list``: the list's SHA-256, wrapped."""
        return self.wrap([(hashlib.sha256(content).digest(), _LIST_AAD)])[0].hex()

    def check_list(self, content: bytes, list_seal: str) -> None:
        """See ``Wrapping.check_list``."""
        try:
            (digest,) = self.unwrap([(bytes.fromhex(list_seal), _LIST_AAD)])
        except ValueError:
            digest = None
        if digest is None or not hmac.compare_digest(digest, hashlib.sha256(content).digest()):
            raise SealBrokenError("the list's seal is broken")

    def _seal(self, values: Sequence[Sealed], objects: TokenObjects) -> list[bytes]:
        storage_key = objects.find(self._storage_id)
        return [objects.seal(storage_key, value, aad=aad) for value, aad in values]

    def _open(self, wrapped: Sequence[Sealed], objects: TokenObjects) -> list[bytes | None]:
        storage_key = objects.find(self._storage_id)
        values: list[bytes | None] = []
        for sealed, aad in wrapped:
            try:
                values.append(objects.open_sealed(storage_key, sealed, aad=aad))
            except PKCS11Error:
                values.append(None)
        return values
