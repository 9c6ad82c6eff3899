"""The electronic card's QR token: opaque to whoever scans it, self-contained for us.

The layout is a profile of this project, not a public standard; 39 bytes, 52 characters::

    version 1 ‖ key version 1 ‖ card alias 8 ‖ issue time 4 (unix s) ‖ nonce 8 ‖ use type 1 ‖ HMAC-SM3 tag 16

A token is refused here for its form and tag only. Its life is decided by the caller, by the database's time
and ``CardCode.issued_at_s``; single use by ``crypto.token_text.token_digest``; the card's status is read at
use. Must never carry anything that says who the holder is.
"""

import enum
import hmac
import secrets
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.hmac import HMAC

from crypto.errors import CardCodeInvalidError
from crypto.keys import Key, KeyRef, KeyUsage
from crypto.macs import hmac_sm3_context
from crypto.token_text import decode_token, encode_token
from crypto.versioned_keys import VersionedKeys

CARD_CODE_VERSION = 1
CARD_CODE_SIZE = 39
CARD_CODE_CHARACTERS_MAX = 64
CARD_ALIAS_SIZE = 8
_NONCE_SIZE = 8
_TAG_SIZE = 16
_BODY = struct.Struct(">BB8sI8sB")


class CardCodeUse(enum.IntEnum):
    """What the holder showed the code for."""

    INQUIRY = 1
    PAYMENT = 2
    OTHER = 3
    CARE_ELSEWHERE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CardCode:
    """A code whose tag fits.

    Args:
        card_alias: 8 bytes that only the card library can turn into a card.
        issued_at_s: unix seconds.
        use: use type.
        key_version: version of the key that tagged it.
    """

    card_alias: bytes
    issued_at_s: int
    use: CardCodeUse
    key_version: int


class CardCodes(VersionedKeys[HMAC]):
    """Issues codes under the version that generates and opens those of every version held."""

    __slots__ = ()

    usage = KeyUsage.CARD_CODE

    def _opened(self, key: Key) -> HMAC:
        return hmac_sm3_context(key)

    def issue(self, *, card_alias: bytes, use: CardCodeUse, issued_at_s: int) -> str:
        """Makes a code: see ``issue_card_code``."""
        if len(card_alias) != CARD_ALIAS_SIZE:
            raise ValueError("a card alias has 8 bytes")
        version, context = self._generating()
        nonce = secrets.token_bytes(_NONCE_SIZE)
        body = _BODY.pack(CARD_CODE_VERSION, version, card_alias, issued_at_s, nonce, use)
        return encode_token(body + _tag(context, body))

    def open(self, code: str) -> CardCode:
        """Reads a code: see ``open_card_code``."""
        try:
            token = decode_token(code, size=CARD_CODE_SIZE)
        except ValueError as error:
            raise CardCodeInvalidError(f"card code: {error}") from None
        body, tag = token[:-_TAG_SIZE], token[-_TAG_SIZE:]
        layout, key_version, card_alias, issued_at_s, _, use = _BODY.unpack(body)
        context = self._state[1].get(key_version) or self._met_unknown(key_version)
        if layout != CARD_CODE_VERSION or context is None:
            raise CardCodeInvalidError("card code: unknown version or key version")
        if not hmac.compare_digest(_tag(context, body), tag):
            raise CardCodeInvalidError("card code: wrong tag")
        try:
            use_type = CardCodeUse(use)
        except ValueError:
            raise CardCodeInvalidError("card code: unknown use type") from None
        return CardCode(card_alias=card_alias, issued_at_s=issued_at_s, use=use_type, key_version=key_version)


def issue_card_code(
    key: Key, *, key_version: int, card_alias: bytes, use: CardCodeUse, issued_at_s: int
) -> str:
    """Makes a code of 52 characters with a fresh nonce.

    Args:
        key: usage ``CARD_CODE``.
        key_version: 1 to 255, told in the code.
        card_alias: 8 bytes.
        use: use type.
        issued_at_s: unix seconds, 32 bits.
    Raises:
        KeyUsageError: not a card-code key.
        ValueError: malformed alias.
    Source: profile of this project.
    """
    codes = CardCodes(KeyRef("card-code", key_version), {key_version: key})
    return codes.issue(card_alias=card_alias, use=use, issued_at_s=issued_at_s)


def open_card_code(key: Key, code: str, *, key_version: int) -> CardCode:
    """Reads a code whose tag fits; says nothing about its life or earlier use.

    Args:
        key: usage ``CARD_CODE``.
        code: as scanned.
        key_version: version of ``key``.
    Raises:
        CardCodeInvalidError: form, version or tag is wrong.
        KeyUsageError: not a card-code key.
    Source: profile of this project.
    """
    return CardCodes(KeyRef("card-code", key_version), {key_version: key}).open(code)


def _tag(context: HMAC, body: bytes) -> bytes:
    keyed = context.copy()
    keyed.update(body)
    return keyed.finalize()[:_TAG_SIZE]
