"""What key administration may do to a store: draw, take in, activate, rotate, retire and destroy keys.

Who may, and that two agree, is decided above. Every step may be repeated: a change id that was executed before,
or a state that is reached already, gives the same answer and changes nothing. Must never show a value.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from crypto.errors import CryptoError, KeyStateError
from crypto.key_store.development_keys import DEVELOPMENT_KEYS
from crypto.key_store.key_list import KeyList
from crypto.key_store.lifecycle import (
    Material,
    NewKey,
    StoredKeys,
    TokenKey,
    activate,
    active_of,
    add_version,
    brought_by,
    cancel_destruction,
    destroy,
    due_for_destruction,
    entry_of,
    next_ref,
    retire,
    schedule_destruction,
    versions_of,
)
from crypto.keys import (
    Cipher,
    Exportability,
    Key,
    KeyInfo,
    KeyRef,
    KeyState,
    KeyUsage,
    UdkOption,
    require_sound_value,
)

R = TypeVar("R")

_HASH_KEY_SIZE = 32
_BLOCK_KEY_SIZE = 16


class KeyAdministration:
    """The life cycle over any list of keys; a backend says where values are drawn, kept and destroyed."""

    _list: KeyList

    def _draw(self, new: NewKey, size: int) -> tuple[Material, str]:
        """A fresh value of ``size`` bytes for ``new``, and its check value."""
        raise NotImplementedError

    def _take_in(self, new: NewKey, key: Key) -> Material:
        """Keeps a value that was made elsewhere."""
        raise NotImplementedError

    def _discard(self, material: Material) -> None:
        """Destroys a value wherever it is; nothing happens when it is gone already."""
        raise NotImplementedError

    def _discard_unlisted(self, made: Sequence[TokenKey]) -> None:
        """Destroys what was made in a token and came into no list, as soon as may be; raises nothing."""
        raise NotImplementedError

    def generate(
        self,
        name: str,
        *,
        cipher: Cipher,
        usage: KeyUsage,
        size: int | None = None,
        udk_option: UdkOption = UdkOption.A,
        exportability: Exportability = Exportability.NON_EXPORTABLE,
        change_id: str = "",
    ) -> KeyInfo:
        """Draws the next version of a name, ``PRE_ACTIVE``.

        Args:
            name: lower-case words with hyphens, at most 48 characters.
            cipher: algorithm, the same for every version of the name.
            usage: the one thing it may do, the same for every version of the name.
            size: bytes; 32 for HMAC-SM3 and 16 otherwise when absent. AES may have 16, 24 or 32.
            udk_option: how an issuer master key derives card keys.
            exportability: whether it may leave in a key block.
            change_id: see the module.
        Raises:
            KeyUsageError: the usage does not go with the cipher, or the name is of another kind.
            KeyStateError: the name has used up its versions, or may have one only; the change id brought a key of
                another kind.
            ValueError: malformed name, change id or size.
        """
        new = NewKey(
            name=name,
            cipher=cipher,
            usage=usage,
            udk_option=udk_option,
            exportability=exportability,
            change_id=change_id,
        )
        return self._add(new, lambda: self._draw(new, _size(cipher, size)), kcv=None)

    def install(
        self,
        name: str,
        key: Key,
        *,
        udk_option: UdkOption = UdkOption.A,
        exportability: Exportability = Exportability.NON_EXPORTABLE,
        change_id: str = "",
    ) -> KeyInfo:
        """Takes in a value as the next version of a name, ``PRE_ACTIVE``: from components, or a key block.

        Args, errors: as ``generate``; the value has the cipher and the usage.

        Raises:
            KeyUnsoundError: zeros only, or single DES in the place of 3DES.
        """
        require_sound_value(key.cipher, key.value)
        new = NewKey(
            name=name,
            cipher=key.cipher,
            usage=key.usage,
            udk_option=udk_option,
            exportability=exportability,
            change_id=change_id,
        )
        kcv = key.kcv()
        return self._add(new, lambda: (self._take_in(new, key), kcv), kcv=kcv)

    def add_key(
        self, name: str, *, cipher: Cipher, usage: KeyUsage, udk_option: UdkOption = UdkOption.A
    ) -> KeyRef:
        """Draws version 1 of a further name, active: another bank's issuer master key, for example.

        Raises:
            KeyStateError: the name is taken.
            KeyUsageError: the usage does not go with the cipher.
            ValueError: malformed name.
        """
        new = NewKey(name=name, cipher=cipher, usage=usage, udk_option=udk_option)

        def add(keys: StoredKeys) -> KeyRef:
            if versions_of(keys, name):
                raise KeyStateError(f"key {name} exists already")
            material, kcv = self._draw(new, _size(cipher, None))
            return add_version(keys, new, kcv=kcv, material=material, state=KeyState.ACTIVE).ref

        return self._change_with_new(add)

    def rotate(self, name: str, *, change_id: str = "") -> KeyInfo:
        """Draws a new version of ``name`` and makes it active; the version before only verifies from now on.

        The new version is of the cipher, usage, option and exportability of the active one.

        Raises:
            KeyNotFoundError: no such key.
            KeyStateError: no version is active, the versions are used up, or there may be one only.
        """

        def add(keys: StoredKeys) -> KeyInfo:
            executed = brought_by(keys, name, change_id)
            if executed is not None:
                return executed
            before, replaced = entry_of(keys, active_of(keys, name))
            new = NewKey(
                name=name,
                cipher=before.cipher,
                usage=before.usage,
                udk_option=before.udk_option,
                exportability=before.exportability,
                change_id=change_id,
            )
            next_ref(keys, new)
            material, kcv = self._draw(new, _size_of(before, replaced))
            return add_version(keys, new, kcv=kcv, material=material, state=KeyState.ACTIVE)

        return self._change_with_new(add)

    def activate(self, ref: KeyRef) -> KeyInfo:
        """``PRE_ACTIVE`` becomes ``ACTIVE``, and the version that was active ``VERIFY_ONLY``, in one write.

        Raises:
            KeyNotFoundError: no such key.
            KeyStateError: not ``PRE_ACTIVE``, or its destruction is planned.
        """
        return self._list.change(lambda keys: activate(keys, ref))

    def retire(self, ref: KeyRef) -> KeyInfo:
        """``ACTIVE`` becomes ``VERIFY_ONLY``: no version generates until another is activated.

        Raises:
            KeyNotFoundError: no such key.
            KeyStateError: not ``ACTIVE``, or of a usage that always has an active version.
        """
        return self._list.change(lambda keys: retire(keys, ref))

    def schedule_destruction(self, ref: KeyRef, at_s: int) -> KeyInfo:
        """Plans the end of a ``PRE_ACTIVE`` or ``VERIFY_ONLY`` version; a date already set stays.

        Args:
            ref: the version.
            at_s: unix seconds from which ``destroy_due`` destroys it; ``DESTRUCTION_GRACE_S`` from now at least,
                as the caller sees to.
        Raises:
            KeyNotFoundError: no such key.
            KeyStateError: ``ACTIVE``, or destroyed.
        """
        return self._list.change(lambda keys: schedule_destruction(keys, ref, at_s))

    def cancel_destruction(self, ref: KeyRef) -> KeyInfo:
        """Takes a planned destruction back.

        Raises:
            KeyNotFoundError: no such key.
            KeyStateError: ``ACTIVE``, or destroyed.
        """
        return self._list.change(lambda keys: cancel_destruction(keys, ref))

    def destroy_due(self, now_s: int) -> list[KeyInfo]:
        """Destroys what is due at ``now_s`` (unix seconds), and says what it was; usually nothing, without a lock.

        A value in a token goes first and the list after it: what dies in between is repeated, and no value
        outlives its entry.
        """
        self._list.refresh()
        if not due_for_destruction(self._list.keys, now_s):
            return []

        def end(keys: StoredKeys) -> list[KeyInfo]:
            due = due_for_destruction(keys, now_s)
            for info in due:
                self._discard(keys[info.ref][1])
            return destroy(keys, due)

        return self._list.change(end)

    def ensure_development_keys(self) -> list[str]:
        """Draws the development keys whose names are not in use, active: a store made by an older release."""

        def missing(keys: StoredKeys) -> list[str]:
            names = {ref.name for ref in keys}
            return [name for name in DEVELOPMENT_KEYS if name not in names]

        def add(keys: StoredKeys) -> list[str]:
            names = missing(keys)
            self._draw_development_keys(keys, names)
            return names

        return self._change_with_new(add) if missing(self._list.keys) else []

    def _draw_development_keys(self, keys: StoredKeys, names: Iterable[str]) -> None:
        for name in names:
            cipher, usage = DEVELOPMENT_KEYS[name]
            new = NewKey(name=name, cipher=cipher, usage=usage)
            material, kcv = self._draw(new, _size(cipher, None))
            add_version(keys, new, kcv=kcv, material=material, state=KeyState.ACTIVE)

    def _add(self, new: NewKey, make: Callable[[], tuple[Material, str]], *, kcv: str | None) -> KeyInfo:
        """Adds a version unless its change was executed before; ``kcv`` is known of a value made elsewhere."""

        def add(keys: StoredKeys) -> KeyInfo:
            executed = brought_by(keys, new.name, new.change_id)
            if executed is not None:
                same_kind = (executed.cipher, executed.usage) == (new.cipher, new.usage)
                if not same_kind or kcv not in (None, executed.kcv):
                    raise KeyStateError(f"key {new.name}: this change brought another key")
                return executed
            # Asked before a value is made: what is refused must leave nothing in a token.
            next_ref(keys, new)
            material, made_kcv = make()
            return add_version(keys, new, kcv=made_kcv, material=material, state=KeyState.PRE_ACTIVE)

        return self._change_with_new(add)

    def _change_with_new(self, change: Callable[[StoredKeys], R]) -> R:
        """A change that brings values: what comes into no list is destroyed where it was made."""
        brought: set[TokenKey] = set()

        def remembered(keys: StoredKeys) -> R:
            before = set(keys)
            try:
                return change(keys)
            finally:
                brought.update(_token_keys(keys, keys.keys() - before))

        try:
            return self._list.change(remembered)
        except BaseException:
            with contextlib.suppress(CryptoError):
                # Only the last step of writing may have failed, and the list be there: what it names stays.
                if brought:
                    self._list.read()
                    self._discard_unlisted([*(brought - _token_keys(self._list.keys, self._list.keys))])
            raise


def _token_keys(keys: StoredKeys, refs: Iterable[KeyRef]) -> set[TokenKey]:
    materials = (keys[ref][1] for ref in refs)
    return {material for material in materials if isinstance(material, TokenKey)}


def _size_of(info: KeyInfo, material: Material) -> int:
    """Bytes of a key, for its successor."""
    if isinstance(material, Key):
        return len(material.value)
    return material.size if isinstance(material, TokenKey) else _size(info.cipher, None)


def _size(cipher: Cipher, size: int | None) -> int:
    if size is not None:
        return size
    return _HASH_KEY_SIZE if cipher is Cipher.HMAC_SM3 else _BLOCK_KEY_SIZE
