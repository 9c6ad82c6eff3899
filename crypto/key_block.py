"""Keys on their way between two key stores: TR-31 / X9.143 key blocks, versions B and D, and one under SM4.

A key block says in clear what its key is for; a MAC binds that to the key. Key stores here keep a usage and no mode
of use, so that a key for one direction comes in only through callers who say that they keep to it.

Must never believe a header before its MAC was checked, never tell why a block was refused that is not authentic, and
never put a key under a weaker one.
"""

import hmac
import re
import secrets
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crypto.blocks import block_size, decrypt_cbc, encrypt_cbc
from crypto.errors import KeyBlockInvalidError, KeyUnsoundError, KeyUsageError
from crypto.key_block_header import (
    ALGORITHM_CODES,
    USAGE_CODES,
    KeyBlockHeader,
    KeyBlockVersion,
    parse_header,
)
from crypto.keys import Cipher, Exportability, Key, KeyUsage, require_sound_value
from crypto.macs import cmac_block

_VERSIONS = {
    Cipher.TDES: KeyBlockVersion.B,
    Cipher.AES: KeyBlockVersion.D,
    Cipher.SM4: KeyBlockVersion.S,
}
# Algorithm indicator of the derivation data, by cipher and key size. 0000 to 0004 are the standard's; F001 is ours.
_ALGORITHM_INDICATORS = {
    (Cipher.TDES, 16): 0x0000,
    (Cipher.AES, 16): 0x0002,
    (Cipher.AES, 24): 0x0003,
    (Cipher.AES, 32): 0x0004,
    (Cipher.SM4, 16): 0xF001,
}
# Bytes a key is filled to, so that a block's length does not tell its key's: TR-31:2018 A.3.
_FILLED_SIZES = {Cipher.TDES: 24, Cipher.AES: 32, Cipher.SM4: 16, Cipher.HMAC_SM3: 32}
# Who may do more with a key, in ascending order.
_FREEDOM = (Exportability.NON_EXPORTABLE, Exportability.EXPORTABLE, Exportability.SENSITIVE)
_COMPONENT_MARK = "c"
_HEX = re.compile(r"(?:[0-9A-F]{2})+")
_REFUSAL = "the key block is malformed or not authentic"


class UnwrappedKey(NamedTuple):
    """A key out of a key block and what the block says about it."""

    header: KeyBlockHeader
    key: Key


@dataclass(frozen=True, slots=True, repr=False)
class _BindingKeys:
    """Encryption and MAC keys of one protection key."""

    encryption: Key
    mac: Key


def wrap_key(
    kbpk: Key,
    key: Key,
    *,
    exportability: Exportability,
    receiver_exportability: Exportability = Exportability.NON_EXPORTABLE,
    mode_of_use: str | None = None,
    key_version: str = "00",
    optional_blocks: Sequence[tuple[str, str]] = (),
) -> str:
    """Writes a key block: version B under a 3DES protection key, D under AES, S under SM4.

    Args:
        kbpk: protection key, usage ``KEY_BLOCK_PROTECTION``, not weaker than ``key``.
        key: the key that leaves.
        exportability: what our key store says of ``key``: whether it may leave at all.
        receiver_exportability: what the header tells the receiver: whether it may leave from there. Never freer
            than ``exportability``.
        mode_of_use: one character that goes with the usage; the usual one when absent.
        key_version: two letters or digits; "00" when versions are not counted. "c…" would mean a component.
        optional_blocks: (two-character id, printable ASCII) pairs, each id once.
    Raises:
        KeyUsageError: ``kbpk`` is for something else or weaker than ``key``; ``key`` may not leave, or not so freely;
            its usage has no code.
        ValueError: key version, mode of use or optional blocks out of their shape.
    Source: TR-31:2018 and X9.143-2021, versions B and D; S is a profile of this project.
    """
    kbpk.require(KeyUsage.KEY_BLOCK_PROTECTION)
    if exportability is Exportability.NON_EXPORTABLE:
        raise KeyUsageError("a key that is not exportable may not be wrapped")
    if _FREEDOM.index(receiver_exportability) > _FREEDOM.index(exportability):
        raise KeyUsageError("a receiver may not be freer with a key than we are")
    if key.usage not in USAGE_CODES:
        raise KeyUsageError(f"a {key.usage.value} key does not leave")
    if _strength_bits(kbpk) < _strength_bits(key):
        raise KeyUsageError("a key may not be wrapped under a weaker one")
    if key_version.startswith(_COMPONENT_MARK):
        raise ValueError("this key version would mark a key component")
    header = KeyBlockHeader(
        version=_VERSIONS[kbpk.cipher],
        usage_code=USAGE_CODES[key.usage].code,
        algorithm=ALGORITHM_CODES[key.cipher],
        mode_of_use=USAGE_CODES[key.usage].modes[0] if mode_of_use is None else mode_of_use,
        key_version=key_version,
        exportability=receiver_exportability,
        optional_blocks=tuple(optional_blocks),
    )
    header.usage()
    return _bind(kbpk, header, key.value, filled_size=_FILLED_SIZES[key.cipher])


def unwrap_key(
    kbpk: Key, block: str, *, usages: Container[KeyUsage] | None = None, narrower_modes: Container[str] = ()
) -> UnwrappedKey:
    """Reads a key block that was written under ``kbpk``.

    Args:
        kbpk: protection key, usage ``KEY_BLOCK_PROTECTION``.
        block: the whole key block.
        usages: what the caller takes; any usage when absent.
        narrower_modes: modes of use that the caller takes besides the full one of each usage (X, B or C), and keeps
            to itself: a ``Key`` does not carry its mode, and a key store would let it do everything.
    Raises:
        KeyBlockInvalidError: malformed, changed, under another key, of another version than ``kbpk`` is for, holding
            a component, or holding what the header cannot mean: one text for all of them. Or the block is authentic
            and its key not sound, see ``require_sound_value``.
        KeyUsageError: ``kbpk`` is for something else; or the block is authentic and its usage not among ``usages``,
            or its mode of use narrower than the usage and not among ``narrower_modes``.
    Source: TR-31:2018 and X9.143-2021, versions B and D; S is a profile of this project.
    """
    kbpk.require(KeyUsage.KEY_BLOCK_PROTECTION)
    try:
        header, value = _unbind(kbpk, block)
        key = Key(header.cipher(), header.usage(), value)
    except (KeyUsageError, ValueError):
        raise KeyBlockInvalidError(_REFUSAL) from None
    if header.key_version.startswith(_COMPONENT_MARK) or _strength_bits(kbpk) < _strength_bits(key):
        raise KeyBlockInvalidError(_REFUSAL)
    if usages is not None and key.usage not in usages:
        raise KeyUsageError(f"a {key.usage.value} key is not taken here")
    if header.mode_of_use != USAGE_CODES[key.usage].modes[0] and header.mode_of_use not in narrower_modes:
        raise KeyUsageError(f"a {key.usage.value} key for one direction is not taken here")
    try:
        require_sound_value(key.cipher, key.value)
    except KeyUnsoundError as error:
        raise KeyBlockInvalidError(str(error)) from None
    return UnwrappedKey(header, key)


def _bind(kbpk: Key, header: KeyBlockHeader, value: bytes, *, filled_size: int) -> str:
    """MAC over header and filled key, then the filled key encrypted with the MAC as initial vector."""
    size = block_size(kbpk.cipher)
    filling = filled_size - len(value) + -(2 + filled_size) % size
    clear = (8 * len(value)).to_bytes(2) + value + secrets.token_bytes(filling)
    text = header.encode(alignment=size, body_size=2 * (len(clear) + size))
    keys = _derive_binding_keys(kbpk)
    mac = cmac_block(keys.mac, text.encode() + clear)
    return text + (encrypt_cbc(keys.encryption, iv=mac, blocks=clear) + mac).hex().upper()


def _unbind(kbpk: Key, block: str) -> tuple[KeyBlockHeader, bytes]:
    """Inverse of ``_bind``.

    Raises:
        ValueError: malformed, or the MAC does not fit.
    """
    size = block_size(kbpk.cipher)
    header, header_size = parse_header(block, alignment=size)
    # Lower-case hex would be a second spelling of the same bytes, unnoticed by the MAC.
    body = block[header_size:]
    if header.version is not _VERSIONS[kbpk.cipher] or not _HEX.fullmatch(body):
        raise ValueError("malformed key block")
    encrypted, mac = bytes.fromhex(body)[:-size], bytes.fromhex(body)[-size:]
    if not encrypted or len(encrypted) % size or len(mac) != size:
        raise ValueError("malformed key block")
    keys = _derive_binding_keys(kbpk)
    clear = decrypt_cbc(keys.encryption, iv=mac, blocks=encrypted)
    if not hmac.compare_digest(cmac_block(keys.mac, block[:header_size].encode() + clear), mac):
        raise ValueError("the key block is not authentic")
    bits = int.from_bytes(clear[:2])
    if bits % 8 or bits // 8 > len(clear) - 2:
        raise ValueError("malformed key length")
    return header, clear[2 : 2 + bits // 8]


def _derive_binding_keys(kbpk: Key) -> _BindingKeys:
    """Encryption and MAC keys: CMAC under the protection key, of counter ‖ use ‖ 00 ‖ algorithm ‖ bits.

    Source: TR-31:2018 A.4 (version B), A.4.3 (version D); NIST SP 800-108 in counter mode.
    """
    size = len(kbpk.value)
    algorithm = _ALGORITHM_INDICATORS[kbpk.cipher, size]

    def derive(use: int) -> Key:
        data = use.to_bytes(2) + b"\x00" + algorithm.to_bytes(2) + (8 * size).to_bytes(2)
        counters = range(1, -(-size // block_size(kbpk.cipher)) + 1)
        material = b"".join(cmac_block(kbpk, counter.to_bytes(1) + data) for counter in counters)
        return Key(kbpk.cipher, kbpk.usage, material[:size])

    return _BindingKeys(encryption=derive(0), mac=derive(1))


def _strength_bits(key: Key) -> int:
    """Security strength: NIST SP 800-57 part 1 table 2; SM3 as the 128-bit level that SM2, SM3 and SM4 share."""
    if key.cipher is Cipher.AES:
        return 8 * len(key.value)
    return 112 if key.cipher is Cipher.TDES else 128
