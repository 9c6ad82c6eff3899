"""The files of the software key store: ``storage.key`` and ``keys.json``, both for their owner only.

Each key is wrapped under the storage key together with its description, so that no field of an entry can be
changed; a seal over the whole list shows a removed or added entry. What files alone cannot show is an older
copy of the whole list put back: a certified HSM can. Must never leave a half-written file where a reader may
find it.
"""

import contextlib
import fcntl
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from crypto.errors import KeyStoreUnavailableError, SealBrokenError
from crypto.key_store.lifecycle import StoredKeys
from crypto.keys import Cipher, Key, KeyInfo, KeyRef, KeyState, KeyUsage, UdkOption
from crypto.sealing import open_sealed, seal

STORAGE_KEY_FILE = "storage.key"
KEYS_FILE = "keys.json"
FORMAT = "onecard-keys-1"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LIST_SEAL_LABEL = b"onecard key list"


@contextlib.contextmanager
def writer_lock(directory: Path) -> Iterator[None]:
    """One writer at a time, among processes. Readers need no lock: files appear whole, by rename."""
    handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file for its owner only: complete and on disk, or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_private(path: Path) -> bytes:
    """Reads a file that only its owner may read.

    Raises:
        KeyStoreUnavailableError: absent, not a plain file, unreadable, or open to group or others.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise KeyStoreUnavailableError(f"key store: cannot read {path}: {error.strerror}") from None
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise KeyStoreUnavailableError(f"key store: {path} is not a plain file")
        if mode & _OTHERS:
            permissions = stat.S_IMODE(mode)
            raise KeyStoreUnavailableError(
                f"key store: {path} is open to others (mode {permissions:04o}): chmod 600 it"
            )
        return file.read()


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


def write_keys(directory: Path, storage_key: Key, keys: StoredKeys) -> None:
    """Replaces the list. A destroyed key keeps its description and loses its bytes."""
    entries = []
    for info, key in keys.values():
        described = _described(info)
        wrapped = seal(storage_key, key.value if key else b"", aad=_canonical(described))
        entries.append({**described, "wrapped": wrapped.hex()})
    document = {"format": FORMAT, "keys": entries, "seal": _list_seal(storage_key, entries)}
    write_whole(directory / KEYS_FILE, json.dumps(document, indent=1).encode() + b"\n")


def read_keys(directory: Path, storage_key: Key) -> StoredKeys:
    """All keys of the store.

    Raises:
        KeyStoreUnavailableError: absent, open to others, or not a key list.
        SealBrokenError: an entry, named, or the list was changed, or the storage key is another one.
    """
    path = directory / KEYS_FILE
    try:
        document = json.loads(read_private(path))
        entries: list[dict[str, Any]] = document["keys"]
        if document["format"] != FORMAT:
            raise ValueError
        keys = dict(_open_entry(storage_key, entry) for entry in entries)
        list_seal = str(document["seal"])
    except (ValueError, KeyError, TypeError):
        raise KeyStoreUnavailableError(f"key store: {path} is not a key list") from None
    if not hmac.compare_digest(list_seal.encode(), _list_seal(storage_key, entries).encode()):
        raise SealBrokenError(f"key store: the list of keys in {path} was changed")
    return keys


def _open_entry(storage_key: Key, entry: Mapping[str, Any]) -> tuple[KeyRef, tuple[KeyInfo, Key | None]]:
    info = KeyInfo(
        name=str(entry["name"]),
        version=int(entry["version"]),
        usage=KeyUsage(entry["usage"]),
        cipher=Cipher(entry["cipher"]),
        kcv=str(entry["kcv"]),
        state=KeyState(entry["state"]),
        udk_option=UdkOption(entry["udk_option"]),
    )
    try:
        value = open_sealed(storage_key, bytes.fromhex(entry["wrapped"]), aad=_canonical(_described(info)))
    except SealBrokenError:
        raise SealBrokenError(f"key store: key {info.name} version {info.version} was changed") from None
    if info.state is KeyState.DESTROYED:
        return info.ref, (info, None)
    key = Key(info.cipher, info.usage, value)
    if key.kcv() != info.kcv:
        raise SealBrokenError(f"key store: key {info.name} version {info.version} fails its check value")
    return info.ref, (info, key)


def _described(info: KeyInfo) -> dict[str, str | int]:
    return {
        "name": info.name,
        "version": info.version,
        "usage": info.usage.value,
        "cipher": info.cipher.value,
        "kcv": info.kcv,
        "state": info.state.value,
        "udk_option": info.udk_option.value,
    }


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _list_seal(storage_key: Key, entries: object) -> str:
    # A key of its own under the storage key, so that no key serves two algorithms.
    sealing_key = HMAC(storage_key.value, hashes.SM3())
    sealing_key.update(_LIST_SEAL_LABEL)
    context = HMAC(sealing_key.finalize(), hashes.SM3())
    context.update(_canonical(entries))
    return context.finalize().hex()
