"""The life of stored keys as pure changes of the list of keys: added, rotated, moved forward, never back.

Must never touch a file: the store reads, changes and writes under its lock.
"""

import secrets
from dataclasses import replace

from crypto.errors import KeyNotFoundError, KeyStateError
from crypto.keys import Cipher, Key, KeyInfo, KeyRef, KeyState, KeyUsage, UdkOption

# Tokens and sealed columns tell the key version in one byte.
VERSION_MAX = 255
_LIFE = list(KeyState)

StoredKeys = dict[KeyRef, tuple[KeyInfo, Key | None]]


def add_key(keys: StoredKeys, name: str, *, cipher: Cipher, usage: KeyUsage, udk_option: UdkOption) -> KeyRef:
    """Adds version 1 of a new name: see ``SoftwareKeyStore.add_key``."""
    if any(ref.name == name for ref in keys):
        raise KeyStateError(f"key {name} exists already")
    ref, stored = new_version(KeyRef(name, 1), cipher, usage, udk_option)
    keys[ref] = stored
    return ref


def rotate(keys: StoredKeys, name: str) -> KeyRef:
    """Adds the next version of a name: see ``SoftwareKeyStore.rotate``."""
    before = active_of(keys, name)
    version = 1 + max(ref.version for ref in keys if ref.name == name)
    if version > VERSION_MAX:
        raise KeyStateError(f"key {name} has used up its versions")
    info, key = keys[before]
    keys[before] = (replace(info, state=KeyState.VERIFY_ONLY), key)
    ref, stored = new_version(KeyRef(name, version), info.cipher, info.usage, info.udk_option)
    keys[ref] = stored
    return ref


def move(keys: StoredKeys, ref: KeyRef, state: KeyState) -> KeyRef:
    """Moves a key forward: see ``SoftwareKeyStore.set_state``."""
    info, key = entry_of(keys, ref)
    if _LIFE.index(state) <= _LIFE.index(info.state):
        raise KeyStateError(f"key {ref.name} version {ref.version} is {info.state.value} already")
    actives = {other.name for other, _ in keys.values() if other.state is KeyState.ACTIVE}
    if state is KeyState.ACTIVE and ref.name in actives:
        raise KeyStateError(f"key {ref.name} has an active version already")
    keys[ref] = (replace(info, state=state), None if state is KeyState.DESTROYED else key)
    return ref


def active_of(keys: StoredKeys, name: str) -> KeyRef:
    infos = [info for info, _ in keys.values() if info.name == name]
    if not infos:
        raise KeyNotFoundError(f"no key {name}")
    for info in infos:
        if info.state is KeyState.ACTIVE:
            return info.ref
    raise KeyStateError(f"key {name} has no active version")


def entry_of(keys: StoredKeys, ref: KeyRef) -> tuple[KeyInfo, Key | None]:
    try:
        return keys[ref]
    except KeyError:
        raise KeyNotFoundError(f"no key {ref.name} version {ref.version}") from None


def value_of(keys: StoredKeys, ref: KeyRef) -> Key:
    _, key = entry_of(keys, ref)
    if key is None:
        raise KeyStateError(f"key {ref.name} version {ref.version} is destroyed")
    return key


def new_version(
    ref: KeyRef, cipher: Cipher, usage: KeyUsage, udk_option: UdkOption = UdkOption.A
) -> tuple[KeyRef, tuple[KeyInfo, Key | None]]:
    key = Key(cipher, usage, secrets.token_bytes(32 if cipher is Cipher.HMAC_SM3 else 16))
    info = KeyInfo(
        name=ref.name,
        version=ref.version,
        usage=usage,
        cipher=cipher,
        kcv=key.kcv(),
        state=KeyState.ACTIVE,
        udk_option=udk_option,
    )
    return ref, (info, key)
