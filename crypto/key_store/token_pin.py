"""The token's PIN: read when it is needed, tried by one process at a time, and by none again once it was refused.

Tokens lock themselves after a few wrong PINs, and a core has many processes that start again. What was refused is
remembered beside the PIN file by that file's stamp, until the file is another one. Must never keep or show the PIN.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pkcs11.exceptions import PinIncorrect, PinInvalid, PinLenRange, PinLocked

from crypto.errors import KeyStoreUnavailableError
from crypto.key_store.wrapped_file import read_private, write_whole

PIN_REFUSALS = (PinIncorrect, PinInvalid, PinLenRange, PinLocked)
# A locked token counts no tries, and the same PIN is right again once its operator has unlocked it.
_WRONG_PIN = (PinIncorrect, PinInvalid, PinLenRange)


def refusal_file(pin_file: Path) -> Path:
    """Where it is remembered that the PIN of this file was refused."""
    return pin_file.with_name(f".{pin_file.name}.refused")


@contextlib.contextmanager
def pin_to_try_once(pin_file: Path) -> Iterator[str]:
    """The PIN, for one log-in inside the block; other processes wait for its end.

    Where the file's directory cannot be written nothing is remembered, and every process that starts tries once.

    Raises:
        KeyStoreUnavailableError: the file cannot be read, is open to others, or holds the PIN that was refused
            before; one line says which.
    """
    with _alone(pin_file):
        pin = read_private(pin_file).decode("utf-8", "replace").strip()
        stamp, remembered = _stamp(pin_file), refusal_file(pin_file)
        if stamp == _read(remembered):
            raise KeyStoreUnavailableError(
                f"key store: the PIN in {pin_file} was refused before and is not tried again:"
                f" write the right one, or remove {remembered}"
            )
        try:
            yield pin
        except _WRONG_PIN:
            with contextlib.suppress(OSError):
                write_whole(remembered, stamp)
            raise


@contextlib.contextmanager
def _alone(pin_file: Path) -> Iterator[None]:
    """One process at a time; no lock where the file system has none, or the file cannot be opened anyway."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            handle = os.open(pin_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _stamp(pin_file: Path) -> bytes:
    """By what another PIN is known without writing anything that depends on the PIN itself."""
    try:
        status = pin_file.stat()
    except OSError as error:
        raise KeyStoreUnavailableError(f"key store: cannot read {pin_file}: {error.strerror}") from None
    return f"{status.st_ino} {status.st_mtime_ns}\n".encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
