"""Keys in files, wrapped under a storage key: the embedded default, for development, demonstration and test.

A software key store is a stand-in for a certified HSM 加密机: master keys are in this process's memory while
it runs, and whoever owns the account owns them. Production of a province needs the hardware backend.

Readers may be many processes; a writer takes a lock and replaces the list whole. Must never hand out a master
key, but to what stands in for terminals and bureaus (``lend``, ``personalise``).
"""

import secrets
from pathlib import Path

from crypto.blocks import ThreadContexts, ecb_decryptor
from crypto.diversification import city_region, complemented, ss_card_factor
from crypto.errors import KeyStoreExistsError
from crypto.key_store import batches
from crypto.key_store.checks import CardKeys
from crypto.key_store.development_keys import DEVELOPMENT_KEYS
from crypto.key_store.lifecycle import Material, NewKey, StoredKeys
from crypto.key_store.listed_store import ListedKeyStore
from crypto.key_store.storage_key import STORAGE_KEY_FILE, FileWrapping, read_storage_key, write_storage_key
from crypto.key_store.wrapped_file import KEYS_FILE, writer_lock
from crypto.keys import Cipher, Key, KeyRef, KeyUsage

__all__ = ["CITY_CONTEXTS_MAX", "DEVELOPMENT_KEYS", "SoftwareKeyStore"]

CITY_CONTEXTS_MAX = 1024


class SoftwareKeyStore(ListedKeyStore):
    """A ``KeyStore`` over ``storage.key`` and ``keys.json`` in one directory."""

    def __init__(self, directory: Path, storage_key: Key) -> None:
        self._masters = ThreadContexts()
        self._decrypting_masters = ThreadContexts(open_context=ecb_decryptor)
        self._cities = ThreadContexts(size_max=CITY_CONTEXTS_MAX)
        super().__init__(directory, FileWrapping(storage_key))

    @classmethod
    def open(cls, directory: Path) -> "SoftwareKeyStore":
        """Opens an existing store.

        Raises:
            KeyStoreUnavailableError: absent, or its files are open to others; one line says which and what to
            do. SealBrokenError: a key, named, or the list was changed.
        """
        store = cls(directory, read_storage_key(directory))
        store._list.read()
        return store

    @classmethod
    def create(cls, directory: Path) -> "SoftwareKeyStore":
        """Creates a store with the development set of keys, all version 1 and active.

        A storage key that is there already stays: what it protects may be in a backup of the list.

        Raises:
            KeyStoreExistsError: the directory holds a store already.
            KeyStoreUnavailableError: the storage key that is there cannot be used, or the list cannot be written.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with writer_lock(directory):
            # The list comes last: a storage key alone is a creation that died, or a store whose list was lost.
            if (directory / KEYS_FILE).exists():
                raise KeyStoreExistsError(f"key store: {directory} already holds one")
            is_kept = (directory / STORAGE_KEY_FILE).exists()
            store = cls(directory, read_storage_key(directory) if is_kept else write_storage_key(directory))
            keys: StoredKeys = {}
            store._draw_development_keys(keys, DEVELOPMENT_KEYS)
            store._list.write_first(keys)
        return store

    def personalise(
        self, *, imk: KeyRef, ss_master: KeyRef, pan: str, psn: str, region: str, atr_historical_bytes: bytes
    ) -> CardKeys:
        """The personalisation bureau's step: the keys a chip is given. For virtual cards only.

        Of the software store alone: in production a bureau's HSM does this, and no card key is ever seen
        here.

        Args:
            imk: issuer master key, active.
            ss_master: province-level master key, active.
            pan: 12 to 19 decimal digits.
            psn: two decimal digits.
            region: issuing region, six digits.
            atr_historical_bytes: 6 to 15 bytes.
        Raises:
            KeyNotFoundError, KeyUsageError, KeyStateError: a master key may not issue cards.
            ValueError: malformed card.
        """
        self.require_generating(imk, KeyUsage.IMK_AC)
        cipher = self.require_generating(ss_master, KeyUsage.SS_AUTHENTICATION_PROVINCE).cipher
        factor = complemented(ss_card_factor(atr_historical_bytes))
        card_key = self.encrypt_under_city(ss_master, city_region(region), factor)
        return CardKeys(
            udk_ac=self.diversify_udks(imk, [(pan, psn)])[0],
            ss_authentication=Key(cipher, KeyUsage.SS_AUTHENTICATION_CARD, card_key),
        )

    def lend(self, ref: KeyRef) -> Key:
        """A key's value, whatever its usage: what is loaded into a virtual terminal, or opens a mailer at a bureau.

        Of the software store alone, for virtual terminals, demonstration and tests: no server calls it.

        Raises:
            KeyNotFoundError: no such key.
            KeyStateError: it may not verify.
        """
        self.require_usable(ref, self._list.entry(ref)[0].usage)
        return self._value(ref)

    def encrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.encrypt_under_master``."""
        self._master(ref)
        return self._masters.update(ref, blocks, open_key=lambda: self._cipher_and_value(ref))

    def decrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.decrypt_under_master``."""
        self.require_usable(ref, KeyUsage.PIN_ENCRYPTION)
        return self._decrypting_masters.update(ref, blocks, open_key=lambda: self._cipher_and_value(ref))

    def encrypt_under_city(self, ref: KeyRef, city: str, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.encrypt_under_city``; the contexts of some cities stay alive."""

        def open_key() -> tuple[Cipher, bytes]:
            return self._list.entry(ref)[0].cipher, batches.city_key_value(self, ref, city)

        return self._cities.update((ref, city), blocks, open_key=open_key)

    def _cipher_and_value(self, ref: KeyRef) -> tuple[Cipher, bytes]:
        key = self._value(ref)
        return key.cipher, key.value

    def _forget_contexts(self) -> None:
        self._masters.forget()
        self._decrypting_masters.forget()
        self._cities.forget()

    def _draw(self, new: NewKey, size: int) -> tuple[Material, str]:
        key = Key(new.cipher, new.usage, secrets.token_bytes(size))
        return key, key.kcv()

    def _take_in(self, new: NewKey, key: Key) -> Material:
        return key

    def _discard(self, material: Material) -> None:
        """Nothing is kept but in the list."""
