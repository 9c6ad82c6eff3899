"""Keys in a PKCS#11 token: a hardware security module 加密机, or SoftHSM in tests.

AES and 3DES masters whose use is plain ECB are objects of the token, sensitive and not extractable. Everything
else (hash keys, keys for algorithms that tokens lack, keys that may be exported, and SM4 where the token has no
SM4) is wrapped under a storage key that never leaves the token, and opened in this process's memory.

In strict mode card keys under the 3DES and AES masters in the token exist in it alone: cryptograms and internal
authentications are proven there. What would need a card key here (issuer scripts, the diagnosis of a cryptogram) is
refused for these masters with ``KeyUsageError``.

Without the token PIN and chip operations fail closed, also those on keys that are open in memory; look-ups,
sealing, digests and QR codes go on. Calls may wait for the token: not to be made on an event loop.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from crypto.blocks import ThreadContexts, ecb_decryptor
from crypto.cryptogram import TransactionData
from crypto.errors import (
    KEY_REFUSALS,
    KeyStateError,
    KeyStoreError,
    KeyStoreExistsError,
    KeyStoreUnavailableError,
    KeyUsageError,
    TokenRefusalError,
)
from crypto.key_store import batches, diagnosis, token_strict
from crypto.key_store.checks import ArqcCheck, InternalAuthenticationCheck, VerifiedArqc
from crypto.key_store.development_keys import DEVELOPMENT_KEYS
from crypto.key_store.lifecycle import RESIDENT_USAGES, Material, NewKey, StoredKeys, TokenKey
from crypto.key_store.listed_store import ListedKeyStore
from crypto.key_store.token_connection import TokenConnection
from crypto.key_store.token_objects import Handle, TokenObjects, new_object_id
from crypto.key_store.token_settings import TokenMode, TokenSettings
from crypto.key_store.token_wrapping import TokenWrapping
from crypto.key_store.wrapped_file import KEYS_FILE, read_facts, writer_lock
from crypto.keys import Cipher, Exportability, Key, KeyInfo, KeyRef, KeyUsage

CITY_CONTEXTS_MAX = 1024
# Ciphers whose derivations tokens know by number, and usages under which other keys are derived.
_STRICT_CIPHERS = (Cipher.TDES, Cipher.AES)
_DERIVING_USAGES = (
    KeyUsage.IMK_AC,
    KeyUsage.IMK_SMI,
    KeyUsage.IMK_SMC,
    KeyUsage.SS_AUTHENTICATION_NATIONAL,
    KeyUsage.SS_AUTHENTICATION_PROVINCE,
    KeyUsage.SS_AUTHENTICATION_CITY,
)


class Pkcs11KeyStore(ListedKeyStore):
    """A ``KeyStore`` over a token and the ``keys.json`` of one directory."""

    is_blocking = True

    def __init__(self, directory: Path, connection: TokenConnection, storage_id: bytes) -> None:
        self._connection = connection
        self._storage_id = storage_id
        self._masters = ThreadContexts()
        self._decrypting_masters = ThreadContexts(open_context=ecb_decryptor)
        self._cities = ThreadContexts(size_max=CITY_CONTEXTS_MAX)
        super().__init__(directory, TokenWrapping(connection, storage_id))

    @classmethod
    def open(cls, directory: Path, settings: TokenSettings) -> "Pkcs11KeyStore":
        """Opens an existing store.

        Raises:
            KeyStoreUnavailableError: the list, the module, the token, its PIN or its storage key; one line says
            which. SealBrokenError: a key, named, or the list was changed.
        """
        try:
            storage_id = bytes.fromhex(read_facts(directory)["storage_key_id"])
        except (KeyError, ValueError):
            raise KeyStoreUnavailableError(
                f"key store: {directory / KEYS_FILE} is under a storage key that is kept elsewhere"
            ) from None
        connection = TokenConnection.open(settings)
        connection.use_storage_key(storage_id)
        store = cls(directory, connection, storage_id)
        store._list.read()
        return store

    @classmethod
    def create(
        cls, directory: Path, settings: TokenSettings, *, names: Iterable[str] = tuple(DEVELOPMENT_KEYS)
    ) -> "Pkcs11KeyStore":
        """Draws a storage key in an initialised token and creates a list under it.

        Args:
            directory: where the list will be.
            settings: the token; its user PIN is set.
            names: which of ``DEVELOPMENT_KEYS`` to draw, version 1 and active.
        Raises:
            KeyStoreExistsError: the directory holds a store already.
            KeyStoreUnavailableError: the module, the token or its PIN; one line says which.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with writer_lock(directory):
            if (directory / KEYS_FILE).exists():
                raise KeyStoreExistsError(f"key store: {directory} already holds one")
            connection = TokenConnection.open(settings)
            # A creation that died leaves a storage key behind that protects nothing; the list names its own.
            storage_id = connection.call(lambda objects: objects.generate_storage_key())
            connection.use_storage_key(storage_id)
            store = cls(directory, connection, storage_id)
            keys: StoredKeys = {}
            try:
                store._draw_development_keys(keys, names)
                store._list.write_first(keys)
            except BaseException:
                # Nothing names them, unless only the last step of writing failed: then the list is there.
                if not (directory / KEYS_FILE).exists():
                    made = [key for _, key in keys.values() if isinstance(key, TokenKey)]
                    store._discard_unlisted([*made, TokenKey(storage_id, 0)])
                raise
        return store

    @property
    def is_lost(self) -> bool:
        """True while the token does not answer: PIN and chip operations fail closed."""
        return self._connection.is_lost

    def encrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.encrypt_under_master``."""
        info, material = self._master(ref)
        if self._stays_inside(info, material):
            raise _stays_inside(info)
        if isinstance(material, TokenKey):
            return self._ask(info, material, lambda objects, key: objects.encrypt(key, info.cipher, blocks))
        self._require_contact()
        return self._masters.update(ref, blocks, open_key=lambda: self._cipher_and_value(ref))

    def decrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.decrypt_under_master``."""
        self.require_usable(ref, KeyUsage.PIN_ENCRYPTION)
        info, material = self._list.entry(ref)
        if isinstance(material, TokenKey):
            return self._ask(info, material, lambda objects, key: objects.decrypt(key, info.cipher, blocks))
        self._require_contact()
        return self._decrypting_masters.update(ref, blocks, open_key=lambda: self._cipher_and_value(ref))

    def encrypt_under_city(self, ref: KeyRef, city: str, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.encrypt_under_city``; the contexts of some cities stay alive."""
        info, material = self._list.entry(ref)
        if self._stays_inside(info, material):
            raise _stays_inside(info)
        self._require_contact()

        def open_key() -> tuple[Cipher, bytes]:
            return info.cipher, batches.city_key_value(self, ref, city)

        return self._cities.update((ref, city), blocks, open_key=open_key)

    def verify_arqcs(self, checks: Sequence[ArqcCheck]) -> list[VerifiedArqc | None]:
        """See ``KeyStore.verify_arqcs``; in strict mode AES and 3DES cards are proven inside the token."""
        results: list[VerifiedArqc | None] = [None] * len(checks)

        def prove(info: KeyInfo, master: TokenKey, positions: Sequence[int]) -> None:
            token_strict.verify_arqcs(self._connection, info, master, checks, results, positions)

        others = self._strictly([check.key for check in checks], KeyUsage.IMK_AC, prove)
        proven = super().verify_arqcs([checks[position] for position in others])
        for position, verified in zip(others, proven, strict=True):
            results[position] = verified
        return results

    def explain_arqc(
        self, check: ArqcCheck, *, transaction: TransactionData | None = None, iad: bytes = b""
    ) -> diagnosis.ArqcExplanation:
        """See ``KeyStore.explain_arqc``.

        Raises:
            KeyUsageError: in strict mode, for a master whose card keys do not leave the token.
        """
        info, material = self._list.keys.get(check.key, (None, None))
        if info is not None and info.usage is KeyUsage.IMK_AC and self._stays_inside(info, material):
            raise _stays_inside(info)
        return super().explain_arqc(check, transaction=transaction, iad=iad)

    def verify_internal_authentications(self, checks: Sequence[InternalAuthenticationCheck]) -> list[bool]:
        """See ``KeyStore.verify_internal_authentications``; strict mode as above."""
        results = [False] * len(checks)

        def prove(info: KeyInfo, master: TokenKey, positions: Sequence[int]) -> None:
            token_strict.verify_internal_authentications(
                self._connection, info, master, checks, results, positions
            )

        usage = KeyUsage.SS_AUTHENTICATION_PROVINCE
        others = self._strictly([check.key for check in checks], usage, prove)
        proven = super().verify_internal_authentications([checks[position] for position in others])
        for position, is_proven in zip(others, proven, strict=True):
            results[position] = is_proven
        return results

    def _strictly(
        self, refs: Sequence[KeyRef], usage: KeyUsage, prove: Callable[[KeyInfo, TokenKey, list[int]], None]
    ) -> list[int]:
        """Proves what the token can prove alone, key by key; gives the positions that are left."""
        if self._connection.settings.mode is not TokenMode.STRICT:
            return list(range(len(refs)))
        others: list[int] = []
        by_key: dict[KeyRef, list[int]] = {}
        for position, ref in enumerate(refs):
            by_key.setdefault(ref, []).append(position)
        for ref, positions in by_key.items():
            try:
                info = self.require_usable(ref, usage)
                _, material = self._list.entry(ref)
                if isinstance(material, TokenKey) and self._stays_inside(info, material):
                    with _missing_key_named(info):
                        prove(info, material, positions)
                else:
                    others += positions
            except KEY_REFUSALS:
                # As in ``batches``: one key that may not verify decides nothing of the others.
                continue
        return others

    def _ask(self, info: KeyInfo, material: TokenKey, work: Callable[[TokenObjects, Handle], bytes]) -> bytes:
        """Something of a key in the token.

        Raises:
            KeyStateError: the token no longer has the key, or has another in its place.
            KeyStoreUnavailableError: the token is lost, or refuses for whatever other reason.
        """
        with _missing_key_named(info):
            return self._connection.call(
                lambda objects: work(objects, objects.find_key(material.object_id, info.cipher, kcv=info.kcv))
            )

    def _stays_inside(self, info: KeyInfo, material: Material) -> bool:
        """Whether what is derived under a master exists in the token alone."""
        return (
            isinstance(material, TokenKey)
            and self._connection.settings.mode is TokenMode.STRICT
            and info.cipher in _STRICT_CIPHERS
            and info.usage in _DERIVING_USAGES
        )

    def _require_contact(self) -> None:
        """What is open in memory is used only while the token is there: taking it away stops the cards."""
        self._connection.require_contact()

    def _cipher_and_value(self, ref: KeyRef) -> tuple[Cipher, bytes]:
        key = self._value(ref)
        return key.cipher, key.value

    def _forget_contexts(self) -> None:
        self._masters.forget()
        self._decrypting_masters.forget()
        self._cities.forget()

    def _is_resident(self, new: NewKey) -> bool:
        """Whether the key lives in the token; one that may be exported cannot, for nothing leaves it again."""
        in_token = self._connection.call(lambda objects: objects.ciphers)
        is_kept = new.exportability is Exportability.NON_EXPORTABLE
        return is_kept and new.usage in RESIDENT_USAGES and new.cipher in in_token

    def _draw(self, new: NewKey, size: int) -> tuple[Material, str]:
        # Made and dropped: refuses what the typed key refuses, before anything is in the token.
        Key(new.cipher, new.usage, bytes(size))
        label = f"onecard-{new.name}"
        if not self._is_resident(new):
            value = self._connection.call(lambda objects: objects.random(size))
            key = Key(new.cipher, new.usage, value)
            return key, key.kcv()

        object_id = new_object_id(self._storage_id, new)

        def generate(objects: TokenObjects) -> str:
            objects.remove(object_id)
            objects.generate(new.cipher, new.usage, label=label, size=size, object_id=object_id)
            return objects.kcv(objects.find(object_id), new.cipher)

        with self._removed_unless_made(object_id):
            kcv = self._connection.call(generate)
        return TokenKey(object_id, size), kcv

    def _take_in(self, new: NewKey, key: Key) -> Material:
        if not self._is_resident(new):
            return key
        label = f"onecard-{new.name}"
        object_id = new_object_id(self._storage_id, new)

        def create(objects: TokenObjects) -> None:
            objects.remove(object_id)
            objects.create(new.cipher, new.usage, key.value, label=label, object_id=object_id)

        with self._removed_unless_made(object_id):
            self._connection.call(create)
        return TokenKey(object_id, len(key.value))

    @contextlib.contextmanager
    def _removed_unless_made(self, object_id: bytes) -> Iterator[None]:
        """Removes what a call that failed, or was not waited for, may have left in the token."""
        try:
            yield
        except KeyStoreError:
            self._connection.post(partial(_remove, object_id))
            raise

    def _discard(self, material: Material) -> None:
        if isinstance(material, TokenKey):
            self._connection.call(lambda objects: objects.remove(material.object_id))
            # Gone already, or is it the token that is gone?
            self._connection.probe()

    def _discard_unlisted(self, made: Sequence[TokenKey]) -> None:
        for key in made:
            self._connection.post(partial(_remove, key.object_id))


def _remove(object_id: bytes, objects: TokenObjects) -> None:
    objects.remove(object_id)


def _stays_inside(info: KeyInfo) -> KeyUsageError:
    return KeyUsageError(
        f"key {info.name} version {info.version} and its card keys do not leave the token in strict mode"
    )


@contextlib.contextmanager
def _missing_key_named(info: KeyInfo) -> Iterator[None]:
    """Tells a key that its token does not have from everything else that a token may refuse.

    Raises:
        KeyStateError: for the one; whatever was raised for the other.
    """
    try:
        yield
    except TokenRefusalError as error:
        if not error.is_without_key:
            raise
        raise KeyStateError(f"key {info.name} version {info.version} is refused by its token") from None
