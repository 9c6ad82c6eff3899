"""Keys in two or three components, each held by another person: whole keys only where they are put together.

Every component is as long as the key and, alone, tells nothing of it: the key is their xor. Must never show a
component, and never accept a set of which one person could know the key: equal or empty components.
"""

import hmac
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NoReturn, SupportsIndex

from crypto.errors import KeyComponentInvalidError, KeyUnsoundError, KeyUsageError
from crypto.keys import Cipher, Exportability, Key, KeyUsage, effective_bits, require_sound_value

COMPONENTS_MIN, COMPONENTS_MAX = 2, 3


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class KeyComponent:
    """One custodian's part of a key; its value is in no ``repr``, format, pickle or copy.

    Args:
        cipher: of the whole key.
        value: as long as the whole key: 16 bytes for SM4 and 3DES, 16/24/32 for AES, 32 for HMAC-SM3.
    Raises:
        ValueError: wrong length.
    Source: ISO 11568:2023 (key components); PCI PIN 6-1 on full-length components.
    """

    cipher: Cipher
    value: bytes

    def __post_init__(self) -> None:
        self._as_key()

    def __repr__(self) -> str:
        return f"KeyComponent({self.cipher.value}, ****)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyComponent):
            return NotImplemented
        return hmac.compare_digest(self.value, other.value) and self.cipher is other.cipher

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("key components are neither pickled nor copied")

    def kcv(self) -> str:
        """Check value of the component, as if it were a key: see ``Key.kcv``."""
        return self._as_key().kcv()

    def verify_kcv(self, kcv: str) -> None:
        """Checks a component as it was typed in against its printed check value.

        Args:
            kcv: 6 hex digits.
        Raises:
            KeyComponentInvalidError: it does not fit.
        """
        if not hmac.compare_digest(self.kcv().encode(), kcv.upper().encode()):
            raise KeyComponentInvalidError("the component does not fit its check value")

    def _as_key(self) -> Key:
        # The one usage that goes with every cipher; the key lives for a check value only.
        return Key(self.cipher, KeyUsage.MESSAGE_MAC, self.value)


def combine_components(cipher: Cipher, usage: KeyUsage, components: Sequence[KeyComponent]) -> Key:
    """Puts a key together.

    Args:
        cipher: of the key; every component must be of it.
        usage: what the key is for.
        components: two or three, of one length.
    Raises:
        KeyComponentInvalidError: another number, cipher or length; a component of zeros; two equal components; a
            key that is not sound, see ``require_sound_value``. Parity bits do not count.
        KeyUsageError: the usage does not go with the cipher.
    Source: ISO 11568:2023; PCI PIN 6 and 13 (components combined by xor).
    """
    if not COMPONENTS_MIN <= len(components) <= COMPONENTS_MAX:
        raise KeyComponentInvalidError("a key has two or three components")
    if any(component.cipher is not cipher for component in components):
        raise KeyComponentInvalidError("a component is of another cipher")
    if len({len(component.value) for component in components}) != 1:
        raise KeyComponentInvalidError("components are of different lengths")
    effective = [effective_bits(cipher, component.value) for component in components]
    if not all(map(any, effective)):
        raise KeyComponentInvalidError("a component is zero")
    value = reduce(_xor, (component.value for component in components))
    try:
        require_sound_value(cipher, value)
    except KeyUnsoundError as error:
        raise KeyComponentInvalidError(str(error)) from None
    if any(itertools.starmap(hmac.compare_digest, itertools.combinations(effective, 2))):
        raise KeyComponentInvalidError("two components are equal")
    return Key(cipher, usage, value)


def split_key(key: Key, count: int, *, exportability: Exportability) -> list[KeyComponent]:
    """Splits a key into random components; each call gives others.

    Args:
        key: a key that ``combine_components`` would give.
        count: 2 or 3.
        exportability: what the key store says of ``key``: whether it may leave at all.
    Raises:
        KeyUsageError: the key may not leave.
        ValueError: another count.
    Source: ISO 11568:2023; PCI PIN 6.
    """
    if not COMPONENTS_MIN <= count <= COMPONENTS_MAX:
        raise ValueError("a key has two or three components")
    if exportability is Exportability.NON_EXPORTABLE:
        raise KeyUsageError("a key that is not exportable may not be split")
    drawn = [secrets.token_bytes(len(key.value)) for _ in range(count - 1)]
    return [KeyComponent(key.cipher, value) for value in [*drawn, reduce(_xor, drawn, key.value)]]


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left) ^ int.from_bytes(right)).to_bytes(len(left))
