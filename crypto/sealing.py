"""Personal data at rest: sealed columns, and the keyed indexes by which sealed data is still found.

A sealed value is bound to its column and row: copied elsewhere, it does not open. A blind index is the same
for the same value of the same kind, and says nothing without its key. Must never be given a nonce by a
caller.
"""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.hmac import HMAC

from crypto.errors import KeyNotFoundError, KeyUsageError, SealBrokenError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import hmac_sm3_context
from crypto.versioned_keys import VersionedKeys

NONCE_SIZE = 12
TAG_SIZE = 16
BLIND_INDEX_SIZE = 16
REQUEST_DIGEST_SIZE = 16
KINDS_MAX = 64


def seal(key: Key, plaintext: bytes, *, aad: bytes) -> bytes:
    """Encrypts and authenticates: nonce ‖ ciphertext ‖ tag.

    The nonce is random: one key seals at most 2^32 values (NIST SP 800-38D 8.3), then a new version takes
    over.

    Args:
        key: SM4 key, usage ``SEALING`` or ``STORAGE``.
        plaintext: any length.
        aad: authenticated, not stored.
    Raises:
        KeyUsageError: another cipher or usage.
    Source: SM4-GCM, RFC 8998; GB/T 36624-2018 clause 9.
    """
    return _seal_with_nonce(key, plaintext, aad=aad, nonce=secrets.token_bytes(NONCE_SIZE))


def open_sealed(key: Key, sealed: bytes, *, aad: bytes) -> bytes:
    """Inverse of ``seal``.

    Raises:
        KeyUsageError: another cipher or usage.
        SealBrokenError: changed, cut, moved, or sealed under another key.
    Source: SM4-GCM, RFC 8998; GB/T 36624-2018 clause 9.
    """
    _require_sealing(key)
    if len(sealed) < NONCE_SIZE + TAG_SIZE:
        raise SealBrokenError("sealed value is too short")
    nonce, tag = sealed[:NONCE_SIZE], sealed[-TAG_SIZE:]
    decryptor = BlockCipher(algorithms.SM4(key.value), modes.GCM(nonce, tag)).decryptor()
    decryptor.authenticate_additional_data(aad)
    plaintext = decryptor.update(sealed[NONCE_SIZE:-TAG_SIZE])
    try:
        decryptor.finalize()
    except InvalidTag:
        raise SealBrokenError("sealed value does not open") from None
    return plaintext


def _seal_with_nonce(key: Key, plaintext: bytes, *, aad: bytes, nonce: bytes) -> bytes:
    # Apart from ``seal`` only the known-answer tests come here: a repeated nonce gives the key away.
    _require_sealing(key)
    encryptor = BlockCipher(algorithms.SM4(key.value), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(aad)
    return nonce + encryptor.update(plaintext) + encryptor.finalize() + encryptor.tag


def _require_sealing(key: Key) -> None:
    key.require(KeyUsage.SEALING, KeyUsage.STORAGE)
    if key.cipher is not Cipher.SM4:
        raise KeyUsageError("sealing needs an SM4 key")


class ColumnSealer(VersionedKeys[Key]):
    """Seals column values under the version that generates and opens those of every version held.

    A sealed column: key version 1 ‖ nonce 12 ‖ ciphertext ‖ tag 16. The version, the column and the row are
    authenticated.
    """

    __slots__ = ()

    usage = KeyUsage.SEALING

    def _opened(self, key: Key) -> Key:
        return key

    def seal(self, plaintext: bytes, *, column: str, row_id: str) -> bytes:
        """Seals one value.

        Args:
            plaintext: any length.
            column: ``table.column``; no NUL.
            row_id: the row's primary key as text.
        Raises:
            KeyStateError: no version is active.
            ValueError: NUL in ``column``.
        """
        number, key = self._generating()
        version = bytes([number])
        aad = _column_aad(version, column=column, row_id=row_id)
        return version + seal(key, plaintext, aad=aad)

    def open(self, sealed: bytes, *, column: str, row_id: str) -> bytes:
        """Opens one value.

        Raises:
            KeyNotFoundError: sealed under a version this sealer was not given.
            SealBrokenError: changed, or from another column or row.
        """
        number = sealed[0] if sealed else 0
        key = self._state[1].get(number) or self._met_unknown(number)
        if key is None:
            raise KeyNotFoundError(f"column {column} is sealed under an unknown version of {self.name}")
        aad = _column_aad(sealed[:1], column=column, row_id=row_id)
        return open_sealed(key, sealed[1:], aad=aad)


def _column_aad(version: bytes, *, column: str, row_id: str) -> bytes:
    if "\0" in column:
        raise ValueError("a column name has no NUL")
    return version + column.encode() + b"\0" + row_id.encode()


class BlindIndex:
    """Keyed look-up values: HMAC-SM3 over kind ‖ 00 ‖ value, left 16 bytes.

    The kind keeps domains apart: an identity number and a card number of equal digits have unrelated indexes.
    """

    __slots__ = ("_contexts", "_keyed")

    def __init__(self, key: Key) -> None:
        key.require(KeyUsage.BLIND_INDEX)
        self._keyed = hmac_sm3_context(key)
        self._contexts: dict[str, HMAC] = {}

    def of(self, value: str, *, kind: str) -> bytes:
        """16 bytes that stand for ``value``.

        Args:
            value: normalised by the caller: equal things must be spelled equally.
            kind: ``"identity_number"``, ``"pan"``, …: a fixed word of the program, no NUL, at most 64 in use.
        Raises:
            ValueError: malformed kind, or more kinds than a program has.
        Source: RFC 2104 with GB/T 32905-2016; domain separation: profile of this project.
        """
        prefixed = self._contexts.get(kind)
        if prefixed is None:
            prefixed = self._context_of_kind(kind)
        keyed = prefixed.copy()
        keyed.update(value.encode())
        return keyed.finalize()[:BLIND_INDEX_SIZE]

    def _context_of_kind(self, kind: str) -> HMAC:
        if not kind or "\0" in kind or len(self._contexts) >= KINDS_MAX:
            raise ValueError("a kind is one of a few fixed words")
        context = self._keyed.copy()
        context.update(kind.encode() + b"\0")
        self._contexts[kind] = context
        return context


class RequestDigest:
    """Keyed digest of a request's bytes: tells whether a repeated request id carries the same content.

    Keyed, because a plain digest of a short request lets a reader of the database guess what was asked.
    """

    __slots__ = ("_keyed",)

    def __init__(self, key: Key) -> None:
        key.require(KeyUsage.REQUEST_DIGEST)
        self._keyed = hmac_sm3_context(key)

    def of(self, request: bytes) -> bytes:
        """16 bytes that stand for ``request``.

        Source: RFC 2104 with GB/T 32905-2016, left 16 bytes.
        """
        keyed = self._keyed.copy()
        keyed.update(request)
        return keyed.finalize()[:REQUEST_DIGEST_SIZE]
