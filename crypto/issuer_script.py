"""Issuer scripts: commands that only the issuer can give a card, behind an answered cryptogram.

A MAC under the card's integrity key binds each command to the transaction (ATC and ARQC); a new PIN travels
enciphered under its secrecy key. Both sides are here: the issuer writes, the card (virtual cards, tests) opens.

Must never encipher before a PIN block is formed, never open before the MAC was checked, and never show a PIN.
The methods are those of debit and credit cards; SM4 under PBOC, AES under EMV, and the VIS PIN block with either
of them, are profiles of this project.
"""

import enum
import hmac
from dataclasses import dataclass
from typing import NamedTuple

from crypto.blocks import block_size, decrypt_cbc, decrypt_ecb, encrypt_cbc, encrypt_ecb
from crypto.cryptogram import ARQC_SIZE, ATC_MAX
from crypto.diversification import SessionMethod, derive_emv_common_session_key, derive_pboc_session_key
from crypto.errors import MacInvalidError
from crypto.keys import Cipher, Key, KeyUsage
from crypto.macs import (
    Padding,
    mac_algorithm_1,
    mac_algorithm_3,
    pad,
    verify_mac_algorithm_1,
    verify_mac_algorithm_3,
)
from crypto.pin_block import Pin
from crypto.script_pin_block import ScriptPinBlock, write_script_pin_block

SCRIPT_MAC_SIZE_MIN = 4
SCRIPT_MAC_SIZE_MAX = 8
_HEADER_SIZE = 5
_LC_MAX = 255
_PADDING = Padding.ONE_THEN_ZEROS
_REFUSAL = "the issuer script is not authentic"


class ScriptCommand(enum.Enum):
    """CLA INS P1 P2 of the commands: EMV 4.3 Book 3, 6.5.1, 6.5.2, 6.5.10; P2 01 and 02 are VIS and PBOC."""

    APPLICATION_BLOCK = bytes.fromhex("841E0000")
    APPLICATION_UNBLOCK = bytes.fromhex("84180000")
    PIN_UNBLOCK = bytes.fromhex("84240000")
    PIN_CHANGE_WITH_CURRENT_PIN = bytes.fromhex("84240001")
    PIN_CHANGE = bytes.fromhex("84240002")

    @property
    def has_data(self) -> bool:
        """Whether enciphered data goes with the command."""
        return self in _WITH_DATA


_WITH_DATA = frozenset({ScriptCommand.PIN_CHANGE, ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptContext:
    """The transaction a script answers, and how keys and MACs come of it.

    Args:
        method: PBOC: session keys from the ATC, data in ECB behind a length byte. EMV_COMMON: session keys from
            the ARQC, data in CBC.
        atc: application transaction counter, 0 to 65535.
        arqc: 8 bytes. Issuers that send several commands at once add 1 to it for each after the first.
        mac_size: bytes of MAC behind a command, 4 to 8.
    Raises:
        ValueError: out of these bounds.
    Source: PBOC 3.0 (JR/T 0025.5) secure messaging; EMV 4.3 Book 2, 9.2 and 9.3, format 2.
    """

    method: SessionMethod
    atc: int
    arqc: bytes
    mac_size: int = SCRIPT_MAC_SIZE_MIN

    def __post_init__(self) -> None:
        is_in_bounds = SCRIPT_MAC_SIZE_MIN <= self.mac_size <= SCRIPT_MAC_SIZE_MAX
        if not 0 <= self.atc <= ATC_MAX or len(self.arqc) != ARQC_SIZE or not is_in_bounds:
            raise ValueError("a script answers an ATC of 2 bytes and an ARQC of 8, with a MAC of 4 to 8")

    def session_key(self, udk: Key) -> Key:
        """Session key of a card key, of the same family.

        Raises:
            KeyUsageError: not a card key; or SM4 under EMV, which defines none.
        """
        if self.method is SessionMethod.PBOC:
            return derive_pboc_session_key(udk, atc=self.atc)
        return derive_emv_common_session_key(udk, diversifier=self.arqc)


@dataclass(frozen=True, slots=True, repr=False)
class IssuerScript:
    """A whole command APDU: CLA INS P1 P2 Lc ‖ enciphered data ‖ MAC."""

    command: bytes

    def __repr__(self) -> str:
        return f"IssuerScript({self.command[:4].hex().upper()}, ****)"


class OpenedScript(NamedTuple):
    """What the card finds in a script: the command, and the clear PIN block or nothing."""

    command: ScriptCommand
    data: bytes

    def __repr__(self) -> str:
        return f"OpenedScript({self.command.name}, ****)"


def build_issuer_script(command: ScriptCommand, context: ScriptContext, *, udk_smi: Key) -> IssuerScript:
    """Writes a command without data.

    Args:
        command: any but the PIN changes.
        context: the transaction.
        udk_smi: card key, usage ``UDK_SMI``.
    Raises:
        KeyUsageError: a key for something else.
        ValueError: the command needs data.
    Source: PBOC 3.0 (JR/T 0025.5); EMV 4.3 Book 2, 9.2; Book 3, 6.5.
    """
    if command.has_data:
        raise ValueError("a PIN change needs a PIN")
    return _script(command, context, udk_smi=udk_smi, enciphered=b"")


def build_pin_change(
    context: ScriptContext,
    *,
    udk_smi: Key,
    udk_smc: Key,
    pin: Pin,
    pin_block: ScriptPinBlock,
    udk_ac: Key | None = None,
    current_pin: Pin | None = None,
) -> IssuerScript:
    """Writes PIN CHANGE/UNBLOCK with a new PIN.

    Args:
        context: the transaction.
        udk_smi: card key, usage ``UDK_SMI``.
        udk_smc: card key, usage ``UDK_SMC``.
        pin: the new PIN.
        pin_block: how it is written.
        udk_ac: card key, usage ``UDK_AC``; VIS alone needs it.
        current_pin: of VIS alone: xored in, so that only a card that knows it takes the new one.
    Raises:
        KeyUsageError: a key for something else.
        ValueError: ``udk_ac`` or ``current_pin`` does not go with ``pin_block``.
    Source: PBOC 3.0 (JR/T 0025.5) PIN CHANGE/UNBLOCK; VIS; EMV 4.3 Book 2, 9.2 and 9.3; Book 3, 6.5.10.
    """
    block = write_script_pin_block(pin, pin_block=pin_block, udk_ac=udk_ac, current_pin=current_pin)
    enciphered = encipher_script_data(context.session_key(udk_smc), block, method=context.method)
    has_current = current_pin is not None
    command = ScriptCommand.PIN_CHANGE_WITH_CURRENT_PIN if has_current else ScriptCommand.PIN_CHANGE
    return _script(command, context, udk_smi=udk_smi, enciphered=enciphered)


def open_issuer_script(
    script: IssuerScript, context: ScriptContext, *, udk_smi: Key, udk_smc: Key
) -> OpenedScript:
    """The card's side: checks the MAC, then deciphers.

    Args:
        script: the command as it came.
        context: the card's own last transaction.
        udk_smi: card key, usage ``UDK_SMI``.
        udk_smc: card key, usage ``UDK_SMC``.
    Raises:
        KeyUsageError: a key for something else.
        MacInvalidError: malformed, of no known command, not for this transaction, or not deciphering. One text.
    Source: see ``build_issuer_script``.
    """
    header, body = script.command[:_HEADER_SIZE], script.command[_HEADER_SIZE:]
    if len(body) < context.mac_size or header[-1] != len(body):
        raise MacInvalidError(_REFUSAL)
    enciphered, mac = body[: -context.mac_size], body[-context.mac_size :]
    message = _message(header, context, enciphered)
    verify_script_mac(context.session_key(udk_smi), message, mac=mac, size=context.mac_size)
    try:
        command = ScriptCommand(header[:4])
    except ValueError:
        raise MacInvalidError(_REFUSAL) from None
    if command.has_data != bool(enciphered):
        raise MacInvalidError(_REFUSAL)
    if not enciphered:
        return OpenedScript(command, b"")
    session_key = context.session_key(udk_smc)
    return OpenedScript(command, decipher_script_data(session_key, enciphered, method=context.method))


def script_mac(session_key: Key, message: bytes, *, size: int = SCRIPT_MAC_SIZE_MIN) -> bytes:
    """MAC of a command: 3DES retail MAC; SM4 and AES CBC-MAC; padded with 80 00…, always.

    Args:
        session_key: usage ``SESSION_SMI``.
        message: CLA INS P1 P2 Lc ‖ ATC ‖ ARQC ‖ enciphered data.
        size: bytes kept from the left, 4 to 8.
    Raises:
        KeyUsageError: a key for something else.
        ValueError: ``size`` out of bounds.
    Source: PBOC 3.0 (JR/T 0025.5, .17); EMV 4.3 Book 2, 9.2.3 and A1.2.1.
    """
    session_key.require(KeyUsage.SESSION_SMI)
    _require_mac_size(size)
    mac = mac_algorithm_3 if session_key.cipher is Cipher.TDES else mac_algorithm_1
    return mac(session_key, message, padding=_PADDING, size=size)


def verify_script_mac(
    session_key: Key, message: bytes, *, mac: bytes, size: int = SCRIPT_MAC_SIZE_MIN
) -> None:
    """Checks a command's MAC of exactly ``size`` bytes.

    Raises:
        KeyUsageError: a key for something else.
        MacInvalidError: wrong MAC or wrong length.
        ValueError: ``size`` out of bounds.
    Source: see ``script_mac``.
    """
    session_key.require(KeyUsage.SESSION_SMI)
    _require_mac_size(size)
    verify = verify_mac_algorithm_3 if session_key.cipher is Cipher.TDES else verify_mac_algorithm_1
    verify(session_key, message, mac=mac, padding=_PADDING, size=size)


def encipher_script_data(session_key: Key, data: bytes, *, method: SessionMethod) -> bytes:
    """Enciphers command data, whole blocks padded with 80 00…, always.

    Args:
        session_key: usage ``SESSION_SMC``.
        data: 1 to 231 bytes.
        method: PBOC: length byte ‖ data in ECB; EMV_COMMON: data in CBC from a zero vector.
    Raises:
        KeyUsageError: a key for something else.
        ValueError: too little or too much data.
    Source: PBOC 3.0 (JR/T 0025.5) data encipherment; EMV 4.3 Book 2, 9.3 and A1.1.
    """
    session_key.require(KeyUsage.SESSION_SMC)
    size = block_size(session_key.cipher)
    # Length byte, one block of padding and the largest MAC still fit into one command.
    if not 1 <= len(data) <= _LC_MAX - SCRIPT_MAC_SIZE_MAX - 16:
        raise ValueError("command data is too short or too long")
    if method is SessionMethod.PBOC:
        return encrypt_ecb(session_key, pad(len(data).to_bytes(1) + data, size=size, padding=_PADDING))
    return encrypt_cbc(session_key, iv=bytes(size), blocks=pad(data, size=size, padding=_PADDING))


def decipher_script_data(session_key: Key, enciphered: bytes, *, method: SessionMethod) -> bytes:
    """Inverse of ``encipher_script_data``; only for data whose MAC was checked.

    Raises:
        KeyUsageError: a key for something else.
        MacInvalidError: not what the method writes.
    Source: see ``encipher_script_data``.
    """
    session_key.require(KeyUsage.SESSION_SMC)
    size = block_size(session_key.cipher)
    if not enciphered or len(enciphered) % size:
        raise MacInvalidError(_REFUSAL)
    if method is SessionMethod.PBOC:
        clear = decrypt_ecb(session_key, enciphered)
        data = clear[1 : 1 + clear[0]]
        expected = pad(len(data).to_bytes(1) + data, size=size, padding=_PADDING)
    else:
        clear = decrypt_cbc(session_key, iv=bytes(size), blocks=enciphered)
        data = clear.rstrip(b"\x00")[:-1]
        expected = pad(data, size=size, padding=_PADDING)
    if not hmac.compare_digest(clear, expected) or not data:
        raise MacInvalidError(_REFUSAL)
    return data


def _script(
    command: ScriptCommand, context: ScriptContext, *, udk_smi: Key, enciphered: bytes
) -> IssuerScript:
    header = command.value + (len(enciphered) + context.mac_size).to_bytes(1)
    message = _message(header, context, enciphered)
    mac = script_mac(context.session_key(udk_smi), message, size=context.mac_size)
    return IssuerScript(header + enciphered + mac)


def _message(header: bytes, context: ScriptContext, enciphered: bytes) -> bytes:
    return header + context.atc.to_bytes(2) + context.arqc + enciphered


def _require_mac_size(size: int) -> None:
    if not SCRIPT_MAC_SIZE_MIN <= size <= SCRIPT_MAC_SIZE_MAX:
        raise ValueError("a script MAC has 4 to 8 bytes")
