"""The life of stored keys as pure changes of the list of keys: added, activated, retired, destroyed, never back.

Must never touch a file or a token: the store reads, changes and writes under its lock.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from crypto.errors import KeyNotFoundError, KeyStateError, KeyUsageError
from crypto.keys import Cipher, Exportability, Key, KeyInfo, KeyRef, KeyState, KeyUsage, UdkOption

# Tokens and sealed columns tell the key version in one byte.
VERSION_MAX = 255
NAME_CHARACTERS_MAX = 48
CHANGE_ID_CHARACTERS_MAX = 64
DESTRUCTION_GRACE_S = 7 * 24 * 3600
# What they computed is stored and looked up by equality: under another version it would not be found again.
SINGLE_VERSION_USAGES = frozenset(
    {KeyUsage.BLIND_INDEX, KeyUsage.REQUEST_DIGEST, KeyUsage.IDENTIFICATION_CODE}
)
# What works under keys of these usages cannot do without an active version: they are rotated, never retired.
ALWAYS_ACTIVE_USAGES = SINGLE_VERSION_USAGES | {KeyUsage.SEALING, KeyUsage.CHALLENGE, KeyUsage.CARD_CODE}
# Masters of which plain ECB is all that is asked: a token keeps them, and no backend hands their values out. Tuples
# here and below: searching them is by identity, while hashing an Enum is Python code.
RESIDENT_USAGES = (
    KeyUsage.IMK_AC,
    KeyUsage.IMK_SMI,
    KeyUsage.IMK_SMC,
    KeyUsage.SS_AUTHENTICATION_NATIONAL,
    KeyUsage.SS_AUTHENTICATION_PROVINCE,
    KeyUsage.SS_AUTHENTICATION_CITY,
    KeyUsage.PIN_ENCRYPTION,
    KeyUsage.PIN_VERIFICATION_PVV,
    KeyUsage.PIN_VERIFICATION_IBM3624,
)
USABLE_STATES = (KeyState.ACTIVE, KeyState.VERIFY_ONLY)
_DESTRUCTIBLE_STATES = (KeyState.PRE_ACTIVE, KeyState.VERIFY_ONLY)
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key whose value is in a token and stays there: its CKA_ID, and its bytes' number."""

    object_id: bytes
    size: int


# Where a key's value is: in this process, in a token, or nowhere any more.
Material = Key | TokenKey | None
StoredKeys = dict[KeyRef, tuple[KeyInfo, Material]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a new version is to be.

    Args:
        name: lower-case words with hyphens, at most 48 characters.
        cipher: algorithm, the same for every version of the name.
        usage: the one thing it may do, the same for every version of the name.
        udk_option: how an issuer master key derives card keys.
        exportability: whether it may leave in a key block.
        change_id: the administrative change that brings it, at most 64 characters; empty: none.
    """

    name: str
    cipher: Cipher
    usage: KeyUsage
    udk_option: UdkOption = UdkOption.A
    exportability: Exportability = Exportability.NON_EXPORTABLE
    change_id: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > NAME_CHARACTERS_MAX:
            raise ValueError(f"a key's name is lower-case words with hyphens, at most {NAME_CHARACTERS_MAX}")
        if len(self.change_id) > CHANGE_ID_CHARACTERS_MAX:
            raise ValueError(f"a change id has at most {CHANGE_ID_CHARACTERS_MAX} characters")


def versions_of(keys: StoredKeys, name: str) -> list[KeyInfo]:
    """All versions of a name, oldest first."""
    return sorted((info for info, _ in keys.values() if info.name == name), key=lambda info: info.version)


def brought_by(keys: StoredKeys, name: str, change_id: str) -> KeyInfo | None:
    """The version that an administrative change brought, if it was executed before."""
    if not change_id:
        return None
    return next((info for info in versions_of(keys, name) if info.change_id == change_id), None)


def next_ref(keys: StoredKeys, new: NewKey) -> KeyRef:
    """Handle of the version to come.

    Raises:
        KeyUsageError: the name's versions have another cipher or usage.
        KeyStateError: its versions are used up, or it is of a usage that has one version only.
    """
    versions = versions_of(keys, new.name)
    if not versions:
        return KeyRef(new.name, 1)
    last = versions[-1]
    if (last.cipher, last.usage) != (new.cipher, new.usage):
        raise KeyUsageError(f"key {new.name} is {last.cipher.value} for {last.usage.value}")
    require_several_versions(last)
    if last.version >= VERSION_MAX:
        raise KeyStateError(f"key {new.name} has used up its versions")
    return KeyRef(new.name, last.version + 1)


def require_several_versions(info: KeyInfo) -> None:
    """Refuses what would put another version in the place of a key that look-up values depend on.

    Raises:
        KeyStateError: the usage has one version only.
    """
    if info.usage in SINGLE_VERSION_USAGES:
        raise KeyStateError(
            f"key {info.name} has one version only: look-up values stored under it would no longer be found"
        )


def add_version(keys: StoredKeys, new: NewKey, *, kcv: str, material: Material, state: KeyState) -> KeyInfo:
    """Adds the next version of a name, ``PRE_ACTIVE``, or ``ACTIVE`` in place of the one that was."""
    ref = next_ref(keys, new)
    info = KeyInfo(
        name=ref.name,
        version=ref.version,
        usage=new.usage,
        cipher=new.cipher,
        kcv=kcv,
        state=KeyState.PRE_ACTIVE,
        udk_option=new.udk_option,
        exportability=new.exportability,
        change_id=new.change_id,
    )
    keys[ref] = (info, material)
    return activate(keys, ref) if state is KeyState.ACTIVE else info


def activate(keys: StoredKeys, ref: KeyRef) -> KeyInfo:
    """``PRE_ACTIVE`` becomes ``ACTIVE``; the version that was active only verifies from now on.

    Raises:
        KeyNotFoundError: no such key.
        KeyStateError: not ``PRE_ACTIVE``, or its destruction is planned.
    """
    info, _ = entry_of(keys, ref)
    if info.state is KeyState.ACTIVE:
        return info
    if info.state is not KeyState.PRE_ACTIVE:
        raise wrong_state(info)
    if info.destroy_at_s is not None:
        raise KeyStateError(f"key {ref.name} version {ref.version} is to be destroyed: cancel that first")
    for other in versions_of(keys, ref.name):
        if other.state is KeyState.ACTIVE:
            _change(keys, replace(other, state=KeyState.VERIFY_ONLY))
    return _change(keys, replace(info, state=KeyState.ACTIVE))


def retire(keys: StoredKeys, ref: KeyRef) -> KeyInfo:
    """``ACTIVE`` becomes ``VERIFY_ONLY``: no version of the name generates until another is activated.

    Raises:
        KeyNotFoundError: no such key.
        KeyStateError: not ``ACTIVE``, or of a usage that always has an active version.
    """
    info, _ = entry_of(keys, ref)
    if info.state is KeyState.VERIFY_ONLY:
        return info
    if info.state is not KeyState.ACTIVE:
        raise wrong_state(info)
    require_several_versions(info)
    if info.usage in ALWAYS_ACTIVE_USAGES:
        raise KeyStateError(f"key {info.name} always has an active version: rotate it instead")
    return _change(keys, replace(info, state=KeyState.VERIFY_ONLY))


def schedule_destruction(keys: StoredKeys, ref: KeyRef, at_s: int) -> KeyInfo:
    """Plans the end of a key that generates nothing; a date already set stays.

    Raises:
        KeyNotFoundError: no such key.
        KeyStateError: ``ACTIVE``, or destroyed already.
    """
    info, _ = entry_of(keys, ref)
    if info.state not in _DESTRUCTIBLE_STATES:
        raise wrong_state(info)
    return info if info.destroy_at_s is not None else _change(keys, replace(info, destroy_at_s=at_s))


def cancel_destruction(keys: StoredKeys, ref: KeyRef) -> KeyInfo:
    """Takes a planned destruction back.

    Raises:
        KeyNotFoundError: no such key.
        KeyStateError: destroyed already, or ``ACTIVE``.
    """
    info, _ = entry_of(keys, ref)
    if info.state not in _DESTRUCTIBLE_STATES:
        raise wrong_state(info)
    return _change(keys, replace(info, destroy_at_s=None))


def due_for_destruction(keys: StoredKeys, now_s: int) -> list[KeyInfo]:
    """Keys whose planned end has come."""
    return [
        info
        for info, _ in keys.values()
        if info.state in _DESTRUCTIBLE_STATES and info.destroy_at_s is not None and info.destroy_at_s <= now_s
    ]


def destroy(keys: StoredKeys, infos: Iterable[KeyInfo]) -> list[KeyInfo]:
    """Drops the values of keys; their descriptions stay."""
    destroyed = [replace(info, state=KeyState.DESTROYED) for info in infos]
    for info in destroyed:
        keys[info.ref] = (info, None)
    return destroyed


def active_of(keys: StoredKeys, name: str) -> KeyRef:
    infos = versions_of(keys, name)
    if not infos:
        raise KeyNotFoundError(f"no key {name}")
    for info in infos:
        if info.state is KeyState.ACTIVE:
            return info.ref
    raise KeyStateError(f"key {name} has no active version")


def entry_of(keys: StoredKeys, ref: KeyRef) -> tuple[KeyInfo, Material]:
    try:
        return keys[ref]
    except KeyError:
        raise KeyNotFoundError(f"no key {ref.name} version {ref.version}") from None


def _change(keys: StoredKeys, info: KeyInfo) -> KeyInfo:
    keys[info.ref] = (info, keys[info.ref][1])
    return info


def wrong_state(info: KeyInfo) -> KeyStateError:
    """What refuses a key for its state."""
    return KeyStateError(f"key {info.name} version {info.version} is {info.state.value}")
