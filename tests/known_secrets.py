"""What no process may write anywhere: key values, key components, PINs and card numbers in clear; and where to look.

Every instance of the core is searched when it ends: its output, its lines, its metrics page and the log of its
database. What tests print themselves is searched when the session ends.
"""

import base64
import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from crypto.errors import CryptoError
from crypto.key_store.software import SoftwareKeyStore
from crypto.key_store.storage_key import read_storage_key
from crypto.keys import Key

# Synthetic cards: server/cards/synthetic.py. Floating-point numbers have no runs of 19 digits.
_PAN = re.compile(rb"621700[0-9]{13}")
_HALF_IN_HEX = re.compile(rb"[0-9a-f]{16}")

# Forms of what tests know beside the keys of a store, and of the keys of every store that was searched.
_remembered: dict[bytes, str] = {}
_pins: set[str] = set()


def remember(label: str, value: bytes) -> None:
    """Looks for ``value`` from now on, unless it is too short or too plain not to be found everywhere."""
    if len(set(value)) >= 8:
        _remembered.update(_forms(label, value))


def remember_pin(digits: str) -> None:
    """Looks for a PIN from now on; one of fewer than 8 digits would be found everywhere by chance."""
    if len(digits) >= 8:
        _pins.add(digits)


def leaks(data_dir: Path, places: Mapping[str, bytes]) -> list[str]:
    """What of an instance's secrets stands in one of ``places``: never the value, its name alone."""
    _remembered.update(_of_store(data_dir / "keys"))
    return [f"{place} holds {secret}" for place, text in places.items() for secret in _found_in(text)]


def table_leaks(data_dir: Path, tables: Mapping[str, str]) -> list[str]:
    """The same for the rows of tables as PostgreSQL writes them, which are large: keys in hexadecimal alone."""
    _remembered.update(_of_store(data_dir / "keys"))
    halves = {form.decode(): label for form, label in _remembered.items() if _HALF_IN_HEX.fullmatch(form)}
    return [
        f"{place} holds {label}"
        for place, text in tables.items()
        for form, label in halves.items()
        if form in text
    ]


def printed_leaks(texts: list[str]) -> list[str]:
    """What of all secrets so far stands in the texts."""
    return sorted({secret for text in texts for secret in _found_in(text.encode(errors="replace"))})


def _found_in(text: bytes) -> list[str]:
    found = {label for form, label in _remembered.items() if form in text}
    for digits in _pins:
        pin = digits.encode()
        field = b"%x%s" % (len(digits), pin)
        is_alone = re.search(rb"(?<![0-9.])" + pin + rb"(?![0-9])", text)
        if is_alone or field + b"f" in text or field.upper() + b"F" in text or pin.hex().encode() in text:
            found.add(f"the PIN {digits[:1]}…")
    if pan := _PAN.search(text):
        found.add(f"the card number …{pan.group()[-4:].decode()}")
    return sorted(found)


def _of_store(directory: Path) -> dict[bytes, str]:
    """The values of all keys of a software store; none where there is no such store."""
    forms: dict[bytes, str] = {}
    with contextlib.suppress(CryptoError, OSError):
        forms |= _forms("the storage key", read_storage_key(directory).value)
        store = SoftwareKeyStore.open(directory)
        for info, material in store._list.keys.values():
            if isinstance(material, Key):
                forms |= _forms(f"key {info.name} version {info.version}", material.value)
    return forms


def _forms(label: str, value: bytes) -> dict[bytes, str]:
    """Spellings of a value in whole, and of each 8 bytes of it: half a 3DES key is a secret too."""
    spellings = [
        base64.b64encode(value).rstrip(b"="),
        base64.urlsafe_b64encode(value).rstrip(b"="),
        repr(value)[2:-1].encode(),
        str(int.from_bytes(value)).encode(),
    ]
    for start in range(0, len(value), 8):
        part = value[start : start + 8]
        spaced = part.hex(" ").encode()
        spellings += [part, part.hex().encode(), part.hex().upper().encode(), spaced, spaced.upper()]
    return dict.fromkeys(spellings, label)
