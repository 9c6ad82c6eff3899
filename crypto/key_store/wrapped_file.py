"""The list of keys in a file, ``keys.json``, for its owner only; whatever wraps them, here or in a token.

Each key is wrapped under the storage key together with its description, so that no field of an entry can be
changed; a seal over the whole list shows a removed or added entry. What files alone cannot show is an older
copy of the whole list put back. Must never leave a half-written file where a reader may find it.
"""

import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crypto.errors import KeyStoreUnavailableError, SealBrokenError
from crypto.key_store.lifecycle import Material, StoredKeys, TokenKey
from crypto.keys import Cipher, Exportability, Key, KeyInfo, KeyRef, KeyState, KeyUsage, UdkOption

KEYS_FILE = "keys.json"
FORMAT = "onecard-keys-1"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

# A value, or a wrapped one, and what is authenticated with it.
Sealed = tuple[bytes, bytes]


class Wrapping(Protocol):
    """Keeps values secret and whole under a storage key, wherever that key is.

    Every method may raise ``KeyStoreUnavailableError`` when the storage key is out of reach.
    """

    @property
    def facts(self) -> dict[str, str]:
        """What the file says of the wrapping, so that a list is never opened with another one."""
        ...

    def wrap(self, values: Sequence[Sealed]) -> list[bytes]:
        """Encrypts and authenticates each value."""
        ...

    def unwrap(self, wrapped: Sequence[Sealed]) -> list[bytes | None]:
        """Inverse of ``wrap``; ``None`` is a value that was changed or is under another key."""
        ...

    def seal_list(self, content: bytes) -> str:
        """A seal over the whole list."""
        ...

    def check_list(self, content: bytes, list_seal: str) -> None:
        """Raises ``SealBrokenError`` unless ``list_seal`` is a seal over ``content``."""
        ...


@dataclass(frozen=True, slots=True)
class FileStamp:
    """By what a replaced file is known without reading it; every writer replaces the list whole."""

    inode: int
    modified_ns: int
    size: int


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


def file_stamp(directory: Path) -> FileStamp | None:
    """The list's stamp now; None when there is no list."""
    try:
        status = (directory / KEYS_FILE).stat()
    except OSError:
        return None
    return FileStamp(status.st_ino, status.st_mtime_ns, status.st_size)


def write_keys(directory: Path, wrapping: Wrapping, keys: StoredKeys) -> None:
    """Replaces the list. A destroyed key keeps its description and loses its bytes."""
    described = [_described(info, material) for info, material in keys.values()]
    values = [material.value if isinstance(material, Key) else b"" for _, material in keys.values()]
    sealed = [(value, _canonical(entry)) for value, entry in zip(values, described, strict=True)]
    entries = [
        {**entry, "wrapped": wrapped.hex()}
        for entry, wrapped in zip(described, wrapping.wrap(sealed), strict=True)
    ]
    document = {
        "format": FORMAT,
        **wrapping.facts,
        "keys": entries,
        "seal": wrapping.seal_list(_canonical(entries)),
    }
    write_whole(directory / KEYS_FILE, json.dumps(document, indent=1).encode() + b"\n")


def read_facts(directory: Path) -> dict[str, str]:
    """What the list says of its wrapping.

    Raises:
        KeyStoreUnavailableError: absent, open to others, or not a key list.
    """
    document = _read_document(directory / KEYS_FILE)
    return {name: str(value) for name, value in document.items() if name not in ("format", "keys", "seal")}


def read_keys(directory: Path, wrapping: Wrapping) -> StoredKeys:
    """All keys of the store.

    Raises:
        KeyStoreUnavailableError: absent, open to others, not a key list, or under another kind of storage key.
        SealBrokenError: an entry, named, or the list was changed, or the storage key is another one.
    """
    path = directory / KEYS_FILE
    document = _read_document(path)
    if any(document.get(name) != value for name, value in wrapping.facts.items()) or (
        "storage_key_id" in document and not wrapping.facts
    ):
        raise KeyStoreUnavailableError(f"key store: {path} is under a storage key that is kept elsewhere")
    try:
        entries: list[dict[str, Any]] = document["keys"]
        described = [_info_of(entry) for entry in entries]
        wrapped = [bytes.fromhex(entry["wrapped"]) for entry in entries]
        list_seal = str(document["seal"])
    except (ValueError, KeyError, TypeError):
        raise _no_key_list(path) from None
    sealed = [
        (value, _canonical(_described(*entry))) for value, entry in zip(wrapped, described, strict=True)
    ]
    keys = dict(
        _checked_entry(info, token_key, value)
        for (info, token_key), value in zip(described, wrapping.unwrap(sealed), strict=True)
    )
    try:
        wrapping.check_list(_canonical(entries), list_seal)
    except SealBrokenError:
        raise SealBrokenError(f"key store: the list of keys in {path} was changed") from None
    return keys


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_private(path))
        if document["format"] != FORMAT:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise _no_key_list(path) from None
    return dict(document)


def _no_key_list(path: Path) -> KeyStoreUnavailableError:
    return KeyStoreUnavailableError(f"key store: {path} is not a key list")


def _info_of(entry: Mapping[str, Any]) -> tuple[KeyInfo, TokenKey | None]:
    """What an entry says; fields that older lists do not have take their defaults."""
    destroy_at_s = entry.get("destroy_at_s")
    info = KeyInfo(
        name=str(entry["name"]),
        version=int(entry["version"]),
        usage=KeyUsage(entry["usage"]),
        cipher=Cipher(entry["cipher"]),
        kcv=str(entry["kcv"]),
        state=KeyState(entry["state"]),
        udk_option=UdkOption(entry["udk_option"]),
        exportability=Exportability(entry.get("exportability", Exportability.NON_EXPORTABLE.value)),
        destroy_at_s=None if destroy_at_s is None else int(destroy_at_s),
        change_id=str(entry.get("change_id", "")),
    )
    object_id = entry.get("token_object")
    return info, None if object_id is None else TokenKey(bytes.fromhex(object_id), int(entry["size"]))


def _checked_entry(
    info: KeyInfo, token_key: TokenKey | None, value: bytes | None
) -> tuple[KeyRef, tuple[KeyInfo, Material]]:
    if value is None:
        raise SealBrokenError(f"key store: key {info.name} version {info.version} was changed")
    if info.state is KeyState.DESTROYED:
        return info.ref, (info, None)
    if token_key is not None:
        return info.ref, (info, token_key)
    key = Key(info.cipher, info.usage, value)
    if key.kcv() != info.kcv:
        raise SealBrokenError(f"key store: key {info.name} version {info.version} fails its check value")
    return info.ref, (info, key)


def _described(info: KeyInfo, material: Material) -> dict[str, str | int]:
    """What is authenticated of an entry; later fields only when they say something, so that old lists hold."""
    described: dict[str, str | int] = {
        "name": info.name,
        "version": info.version,
        "usage": info.usage.value,
        "cipher": info.cipher.value,
        "kcv": info.kcv,
        "state": info.state.value,
        "udk_option": info.udk_option.value,
    }
    if info.exportability is not Exportability.NON_EXPORTABLE:
        described["exportability"] = info.exportability.value
    if info.destroy_at_s is not None:
        described["destroy_at_s"] = info.destroy_at_s
    if info.change_id:
        described["change_id"] = info.change_id
    if isinstance(material, TokenKey):
        described["token_object"] = material.object_id.hex()
        described["size"] = material.size
    return described


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
