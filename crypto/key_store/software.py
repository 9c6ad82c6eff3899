"""Keys in files, wrapped under a storage key: the embedded default, for development, demonstration and test.

A software key store is a stand-in for a certified HSM 加密机: master keys are in this process's memory while
it runs, and whoever owns the account owns them. Production of a province needs the hardware backend.

Readers may be many processes; a writer takes a lock and replaces the list whole. Must never hand out a master
key.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from crypto.blocks import ThreadEncryptors
from crypto.card_code import CardCodes
from crypto.challenge import Challenges
from crypto.diversification import city_region, complemented, ss_card_factor, udk_factor_of
from crypto.errors import KeyStateError, KeyStoreExistsError, KeyUsageError
from crypto.identification_code import IdentificationCodes
from crypto.key_store import batches, diagnosis
from crypto.key_store.checks import ArqcCheck, CardKeys, InternalAuthenticationCheck, VerifiedArqc
from crypto.key_store.lifecycle import (
    StoredKeys,
    active_of,
    add_key,
    entry_of,
    move,
    new_version,
    rotate,
    value_of,
)
from crypto.key_store.wrapped_file import (
    KEYS_FILE,
    read_keys,
    read_storage_key,
    write_keys,
    write_storage_key,
    writer_lock,
)
from crypto.keys import Cipher, Key, KeyInfo, KeyRef, KeyState, KeyUsage, UdkOption
from crypto.sealing import BlindIndex, ColumnSealer, RequestDigest

DEVELOPMENT_KEYS: Mapping[str, tuple[Cipher, KeyUsage]] = {
    "imk-ac-sm4": (Cipher.SM4, KeyUsage.IMK_AC),
    "imk-ac-tdes": (Cipher.TDES, KeyUsage.IMK_AC),
    "imk-ac-aes": (Cipher.AES, KeyUsage.IMK_AC),
    "ss-auth-sm4": (Cipher.SM4, KeyUsage.SS_AUTHENTICATION_PROVINCE),
    "ss-auth-tdes": (Cipher.TDES, KeyUsage.SS_AUTHENTICATION_PROVINCE),
    "ss-auth-aes": (Cipher.AES, KeyUsage.SS_AUTHENTICATION_PROVINCE),
    "card-code": (Cipher.HMAC_SM3, KeyUsage.CARD_CODE),
    "challenge": (Cipher.HMAC_SM3, KeyUsage.CHALLENGE),
    "sealing": (Cipher.SM4, KeyUsage.SEALING),
    "blind-index": (Cipher.HMAC_SM3, KeyUsage.BLIND_INDEX),
    "request-digest": (Cipher.HMAC_SM3, KeyUsage.REQUEST_DIGEST),
    "identification-code": (Cipher.SM4, KeyUsage.IDENTIFICATION_CODE),
}
CITY_CONTEXTS_MAX = 1024
# A tuple: searching it is by identity, while hashing an Enum is Python code.
_USABLE = (KeyState.ACTIVE, KeyState.VERIFY_ONLY)


class SoftwareKeyStore:
    """A ``KeyStore`` over ``storage.key`` and ``keys.json`` in one directory."""

    def __init__(self, directory: Path, storage_key: Key, keys: StoredKeys) -> None:
        self._directory = directory
        self._storage_key = storage_key
        # Replaced whole, never changed in place: other threads may be reading it.
        self._keys = keys
        self._masters = ThreadEncryptors()
        self._cities = ThreadEncryptors(size_max=CITY_CONTEXTS_MAX)

    def __repr__(self) -> str:
        return f"SoftwareKeyStore({str(self._directory)!r})"

    @classmethod
    def open(cls, directory: Path) -> "SoftwareKeyStore":
        """Opens an existing store.

        Raises:
            KeyStoreUnavailableError: absent, or its files are open to others; one line says which and what to
            do. SealBrokenError: a key, named, or the list was changed.
        """
        storage_key = read_storage_key(directory)
        return cls(directory, storage_key, read_keys(directory, storage_key))

    @classmethod
    def create(cls, directory: Path) -> "SoftwareKeyStore":
        """Creates a store with the development set of keys, all version 1 and active.

        Raises:
            KeyStoreExistsError: the directory holds a store already.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with writer_lock(directory):
            # The list comes last: a storage key alone is a creation that died and protected nothing yet.
            if (directory / KEYS_FILE).exists():
                raise KeyStoreExistsError(f"key store: {directory} already holds one")
            storage_key = write_storage_key(directory)
            keys: StoredKeys = dict(
                new_version(KeyRef(name, 1), *kind) for name, kind in DEVELOPMENT_KEYS.items()
            )
            write_keys(directory, storage_key, keys)
        return cls(directory, storage_key, keys)

    def describe(self) -> list[KeyInfo]:
        """All keys, by name and version, without their bytes."""
        return [info for _, (info, _) in sorted(self._keys.items())]

    def active(self, name: str) -> KeyRef:
        """The active version of ``name``.

        Raises:
            KeyNotFoundError: no such key.
            KeyStateError: no version of it is active.
        """
        return active_of(self._keys, name)

    def diversify_udks(self, ref: KeyRef, cards: Sequence[tuple[str, str]]) -> list[Key]:
        """See ``KeyStore.diversify_udks``."""
        info = self.require_usable(ref, KeyUsage.IMK_AC)
        factor = udk_factor_of(info.udk_option)
        udks = self.encrypt_under_master(ref, b"".join([factor(pan, psn) for pan, psn in cards]))
        return [
            Key(info.cipher, KeyUsage.UDK_AC, udks[start : start + 16]) for start in range(0, len(udks), 16)
        ]

    def verify_arqcs(self, checks: Sequence[ArqcCheck]) -> list[VerifiedArqc | None]:
        """See ``KeyStore.verify_arqcs``."""
        return batches.verify_arqcs(self, checks)

    def explain_arqc(self, check: ArqcCheck) -> diagnosis.ArqcExplanation:
        """See ``KeyStore.explain_arqc``."""
        return diagnosis.explain_arqc(self, self.describe(), check)

    def verify_internal_authentications(self, checks: Sequence[InternalAuthenticationCheck]) -> list[bool]:
        """See ``KeyStore.verify_internal_authentications``."""
        return batches.verify_internal_authentications(self, checks)

    def blind_index(self, ref: KeyRef) -> BlindIndex:
        """See ``KeyStore.blind_index``."""
        return BlindIndex(self._usable_key(ref, KeyUsage.BLIND_INDEX))

    def sealer(self, ref: KeyRef) -> ColumnSealer:
        """See ``KeyStore.sealer``."""
        return ColumnSealer(ref, self._usable_versions(ref, KeyUsage.SEALING))

    def card_codes(self, ref: KeyRef) -> CardCodes:
        """See ``KeyStore.card_codes``."""
        return CardCodes(ref, self._usable_versions(ref, KeyUsage.CARD_CODE))

    def challenges(self, ref: KeyRef) -> Challenges:
        """See ``KeyStore.challenges``."""
        return Challenges(ref, self._usable_versions(ref, KeyUsage.CHALLENGE))

    def request_digest(self, ref: KeyRef) -> RequestDigest:
        """See ``KeyStore.request_digest``."""
        return RequestDigest(self._usable_key(ref, KeyUsage.REQUEST_DIGEST))

    def identification_codes(self, ref: KeyRef) -> IdentificationCodes:
        """See ``KeyStore.identification_codes``."""
        return IdentificationCodes(self._usable_key(ref, KeyUsage.IDENTIFICATION_CODE))

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
        self._require_active(imk)
        self._require_active(ss_master)
        cipher = self.require_usable(ss_master, KeyUsage.SS_AUTHENTICATION_PROVINCE).cipher
        factor = complemented(ss_card_factor(atr_historical_bytes))
        card_key = self.encrypt_under_city(ss_master, city_region(region), factor)
        return CardKeys(
            udk_ac=self.diversify_udks(imk, [(pan, psn)])[0],
            ss_authentication=Key(cipher, KeyUsage.SS_AUTHENTICATION_CARD, card_key),
        )

    def add_key(
        self, name: str, *, cipher: Cipher, usage: KeyUsage, udk_option: UdkOption = UdkOption.A
    ) -> KeyRef:
        """Draws version 1 of a further key, active: another bank's issuer master key, for example.

        Args:
            name: lower-case words with hyphens, not in use.
            cipher: algorithm.
            usage: the one thing it may do.
            udk_option: how an issuer master key derives card keys.
        Raises:
            KeyStateError: the name is taken.
            KeyUsageError: the usage does not go with the cipher.
        """

        return self._change(
            lambda keys: add_key(keys, name, cipher=cipher, usage=usage, udk_option=udk_option)
        )

    def rotate(self, name: str) -> KeyRef:
        """Draws a new version of ``name`` and makes it active; the version before only verifies from now on.

        Objects handed out and other processes keep the old set until they ask again or ``reload``.

        Raises:
            KeyNotFoundError, KeyStateError: nothing to rotate.
        """

        return self._change(lambda keys: rotate(keys, name))

    def set_state(self, ref: KeyRef, state: KeyState) -> None:
        """Moves a key forward in its life; DESTROYED drops its bytes for good.

        Raises:
            KeyNotFoundError: no such key.
            KeyStateError: a step back, or a second active version.
        """

        self._change(lambda keys: move(keys, ref, state))

    def reload(self) -> None:
        """Takes over what another process changed.

        Raises:
            KeyStoreUnavailableError, SealBrokenError: as ``open``; the keys held so far stay in force.
        """
        self._take(read_keys(self._directory, self._storage_key))

    def require_usable(self, ref: KeyRef, usage: KeyUsage) -> KeyInfo:
        """See ``batches.MasterKeys.require_usable``."""
        info, _ = entry_of(self._keys, ref)
        if info.usage is not usage:
            raise KeyUsageError(f"key {ref.name} is for {info.usage.value}, not {usage.value}")
        if info.state not in _USABLE:
            raise KeyStateError(f"key {ref.name} version {ref.version} is {info.state.value}")
        return info

    def encrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.encrypt_under_master``."""

        def open_key() -> tuple[Cipher, bytes]:
            key = value_of(self._keys, ref)
            return key.cipher, key.value

        return self._masters.encrypt(ref, blocks, open_key=open_key)

    def encrypt_under_city(self, ref: KeyRef, city: str, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.encrypt_under_city``; the contexts of some cities stay alive."""

        def open_key() -> tuple[Cipher, bytes]:
            return entry_of(self._keys, ref)[0].cipher, batches.city_key_value(self, ref, city)

        return self._cities.encrypt((ref, city), blocks, open_key=open_key)

    def _require_active(self, ref: KeyRef) -> None:
        if entry_of(self._keys, ref)[0].state is not KeyState.ACTIVE:
            raise KeyStateError(f"key {ref.name} version {ref.version} may not generate")

    def _usable_key(self, ref: KeyRef, usage: KeyUsage) -> Key:
        self.require_usable(ref, usage)
        return value_of(self._keys, ref)

    def _usable_versions(self, ref: KeyRef, usage: KeyUsage) -> dict[int, Key]:
        """Every version of ``ref.name`` that may verify; ``ref`` itself must be the one that generates."""
        keys = self._keys
        self.require_usable(ref, usage)
        self._require_active(ref)
        return {
            other.version: key
            for other, (info, key) in keys.items()
            if other.name == ref.name and info.state in _USABLE and key is not None
        }

    def _change(self, change: Callable[[StoredKeys], KeyRef]) -> KeyRef:
        """Applies a change to what the files say now, not to what this process read earlier."""
        with writer_lock(self._directory):
            keys = read_keys(self._directory, self._storage_key)
            ref = change(keys)
            write_keys(self._directory, self._storage_key, keys)
        self._take(keys)
        return ref

    def _take(self, keys: StoredKeys) -> None:
        # Keys first, contexts after: a context opened in between is already one of the new set.
        self._keys = keys
        self._masters.forget()
        self._cities.forget()
