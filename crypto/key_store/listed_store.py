"""What every backend over a list of keys does alike: it looks keys up, checks what they may do, and hands out
objects that follow their rotation.

A backend adds the primitives of ``batches.MasterKeys`` and where values are. Must never hand out a master key.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

from crypto.card_code import CardCodes
from crypto.challenge import Challenges
from crypto.cryptogram import TransactionData
from crypto.diversification import udk_factor_of
from crypto.errors import KeyStateError, KeyUsageError
from crypto.identification_code import IdentificationCodes
from crypto.key_store import batches, diagnosis
from crypto.key_store.administration import KeyAdministration
from crypto.key_store.checks import ArqcCheck, InternalAuthenticationCheck, VerifiedArqc
from crypto.key_store.key_list import KeyList
from crypto.key_store.lifecycle import (
    RESIDENT_USAGES,
    USABLE_STATES,
    Material,
    StoredKeys,
    TokenKey,
    active_of,
    wrong_state,
)
from crypto.key_store.wrapped_file import Wrapping
from crypto.keys import Exportability, Key, KeyInfo, KeyRef, KeyState, KeyUsage
from crypto.sealing import BlindIndex, ColumnSealer, RequestDigest
from crypto.versioned_keys import VersionedKeys


class ListedKeyStore(KeyAdministration):
    """A ``KeyStore`` over ``keys.json`` in one directory; ``_list.read`` or ``write_first`` fills it."""

    # True when a call may wait for something outside this process.
    is_blocking = False

    def __init__(self, directory: Path, wrapping: Wrapping) -> None:
        self._handed_out: WeakSet[VersionedKeys[Any]] = WeakSet()
        self._handing_out = threading.Lock()
        self._list = KeyList(directory, wrapping, is_blocking=self.is_blocking, on_change=self._follow)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._list.directory)!r})"

    def describe(self) -> list[KeyInfo]:
        """All keys, by name and version, without their bytes."""
        return [info for _, (info, _) in sorted(self._keys.items())]

    def active(self, name: str) -> KeyRef:
        """The active version of ``name``.

        Raises:
            KeyNotFoundError: no such key.
            KeyStateError: no version of it is active.
        """
        ref = self._list.active.get(name)
        if ref is None and self._list.renew():
            ref = self._list.active.get(name)
        return ref if ref is not None else active_of(self._keys, name)

    def usable(self, name: str) -> list[KeyRef]:
        """Every version of ``name`` that may verify, oldest first."""
        if name not in self._list.usable:
            self._list.renew()
        return list(self._list.usable.get(name, ()))

    def refresh(self) -> bool:
        """See ``KeyStore.refresh``."""
        return self._list.refresh()

    def require_usable(self, ref: KeyRef, *usages: KeyUsage) -> KeyInfo:
        """See ``batches.MasterKeys.require_usable``."""
        info, _ = self._list.entry(ref)
        if info.usage not in usages:
            wanted = " or ".join(usage.value for usage in usages)
            raise KeyUsageError(f"key {ref.name} is for {info.usage.value}, not {wanted}")
        if info.state not in USABLE_STATES:
            # Activated by another process a moment ago, perhaps.
            if self._list.renew():
                info, _ = self._list.entry(ref)
            if info.state not in USABLE_STATES:
                raise wrong_state(info)
        return info

    def require_generating(self, ref: KeyRef, *usages: KeyUsage) -> KeyInfo:
        """See ``KeyStore.require_generating``."""
        info = self.require_usable(ref, *usages)
        if info.state is not KeyState.ACTIVE:
            raise KeyStateError(f"key {ref.name} version {ref.version} may not generate")
        return info

    def open_key(self, ref: KeyRef, *usages: KeyUsage, generating: bool = False) -> Key:
        """See ``KeyStore.open_key``."""
        if generating:
            self.require_generating(ref, *usages)
        else:
            self.require_usable(ref, *usages)
        if self._list.entry(ref)[0].usage in RESIDENT_USAGES:
            raise KeyUsageError(f"key {ref.name} is a master key: it works inside the key store")
        self._require_contact()
        return self._value(ref)

    def open_to_export(self, ref: KeyRef) -> Key:
        """A key's value, to be wrapped for somebody else at once; also before its activation.

        Raises:
            KeyNotFoundError: no such key.
            KeyUsageError: it may not leave.
            KeyStateError: it is destroyed.
        """
        info, _ = self._list.entry(ref)
        if info.exportability is Exportability.NON_EXPORTABLE:
            raise KeyUsageError(f"key {ref.name} version {ref.version} may not leave")
        self._require_contact()
        return self._value(ref)

    def encrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.encrypt_under_master``."""
        raise NotImplementedError

    def decrypt_under_master(self, ref: KeyRef, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.decrypt_under_master``."""
        raise NotImplementedError

    def encrypt_under_city(self, ref: KeyRef, city: str, blocks: bytes) -> bytes:
        """See ``batches.MasterKeys.encrypt_under_city``."""
        raise NotImplementedError

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

    def explain_arqc(
        self, check: ArqcCheck, *, transaction: TransactionData | None = None, iad: bytes = b""
    ) -> diagnosis.ArqcExplanation:
        """See ``KeyStore.explain_arqc``."""
        return diagnosis.explain_arqc(self, self.describe(), check, transaction=transaction, iad=iad)

    def verify_internal_authentications(self, checks: Sequence[InternalAuthenticationCheck]) -> list[bool]:
        """See ``KeyStore.verify_internal_authentications``."""
        return batches.verify_internal_authentications(self, checks)

    def blind_index(self, ref: KeyRef) -> BlindIndex:
        """See ``KeyStore.blind_index``."""
        return BlindIndex(self._usable_key(ref, KeyUsage.BLIND_INDEX))

    def sealer(self, ref: KeyRef) -> ColumnSealer:
        """See ``KeyStore.sealer``."""
        sealer = ColumnSealer(ref, self._versions(ref, KeyUsage.SEALING), renew=self._list.renew)
        self._hand_out(sealer)
        return sealer

    def card_codes(self, ref: KeyRef) -> CardCodes:
        """See ``KeyStore.card_codes``."""
        codes = CardCodes(ref, self._versions(ref, KeyUsage.CARD_CODE), renew=self._list.renew)
        self._hand_out(codes)
        return codes

    def challenges(self, ref: KeyRef) -> Challenges:
        """See ``KeyStore.challenges``."""
        challenges = Challenges(ref, self._versions(ref, KeyUsage.CHALLENGE), renew=self._list.renew)
        self._hand_out(challenges)
        return challenges

    def request_digest(self, ref: KeyRef) -> RequestDigest:
        """See ``KeyStore.request_digest``."""
        return RequestDigest(self._usable_key(ref, KeyUsage.REQUEST_DIGEST))

    def identification_codes(self, ref: KeyRef) -> IdentificationCodes:
        """See ``KeyStore.identification_codes``."""
        return IdentificationCodes(self._usable_key(ref, KeyUsage.IDENTIFICATION_CODE))

    @property
    def _keys(self) -> StoredKeys:
        return self._list.keys

    def _require_contact(self) -> None:
        """Refuses while what the keys are under is out of reach; keys in files are always within reach."""

    def _forget_contexts(self) -> None:
        """Drops what was opened of keys that may have changed."""

    def _master(self, ref: KeyRef) -> tuple[KeyInfo, Material]:
        """A key that encrypts blocks, where it is.

        Raises:
            KeyNotFoundError: no such key.
            KeyUsageError: a key of a usage whose value, or whose other work, would come out block by block.
            KeyStateError: it may not verify.
        """
        info = self.require_usable(ref, *RESIDENT_USAGES)
        return info, self._list.entry(ref)[1]

    def _value(self, ref: KeyRef) -> Key:
        _, material = self._list.entry(ref)
        if material is None:
            raise KeyStateError(f"key {ref.name} version {ref.version} is destroyed")
        if isinstance(material, TokenKey):
            raise KeyUsageError(f"key {ref.name} version {ref.version} does not leave its token")
        return material

    def _usable_key(self, ref: KeyRef, usage: KeyUsage) -> Key:
        self.require_usable(ref, usage)
        return self._value(ref)

    def _versions(self, ref: KeyRef, usage: KeyUsage) -> dict[int, Key]:
        """Every version of ``ref.name`` that may verify; ``ref`` itself must be the one that generates."""
        self.require_generating(ref, usage)
        return self._usable_values(ref.name)[1]

    def _usable_values(self, name: str) -> tuple[int | None, dict[int, Key]]:
        """The version that generates, if one does, and the values of all that may verify."""
        usable = [
            (info, material)
            for info, material in self._keys.values()
            if info.name == name and info.state in USABLE_STATES
        ]
        generating = next((info.version for info, _ in usable if info.state is KeyState.ACTIVE), None)
        return generating, {info.version: key for info, key in usable if isinstance(key, Key)}

    def _hand_out(self, versioned: VersionedKeys[Any]) -> None:
        with self._handing_out:
            self._handed_out.add(versioned)
        # Once more: the list may have been renewed between the look-up and the line above.
        versioned.replace_keys(*self._usable_values(versioned.name))

    def _follow(self) -> None:
        """The list was replaced: keys first, contexts after, so that what is opened in between is of the new set."""
        self._forget_contexts()
        with self._handing_out:
            handed_out = list(self._handed_out)
        for versioned in handed_out:
            versioned.replace_keys(*self._usable_values(versioned.name))
