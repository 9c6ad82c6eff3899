"""The challenge a terminal passes to a card, carried by the caller instead of stored by us.

The token binds the process factor, the original data, the time and the participant it was issued to; 38
bytes::

    version 1 ‖ key version 1 ‖ process factor 8 ‖ original data 8 ‖ issue time 4 (unix s) ‖ HMAC-SM3 tag 16

The participant is under the tag but not in the token: presented by another one, it does not open. Life is
decided by the caller, single use by ``crypto.token_text.token_digest``. The layout is a profile of this
project. Must never accept a challenge the caller chose.
"""

import hmac
import secrets
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.hmac import HMAC

from crypto.errors import ChallengeInvalidError
from crypto.internal_authentication import ORIGINAL_DATA_SIZE, PROCESS_FACTOR_SIZE
from crypto.keys import Key, KeyUsage
from crypto.macs import hmac_sm3_context
from crypto.token_text import decode_token, encode_token
from crypto.versioned_keys import VersionedKeys

CHALLENGE_VERSION = 1
CHALLENGE_SIZE = 38
_TAG_SIZE = 16
_BODY = struct.Struct(">BB8s8sI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A challenge whose tag fits.

    Args:
        process_factor: 8 random bytes.
        original_data: 8 random bytes.
        issued_at_s: unix seconds.
    """

    process_factor: bytes
    original_data: bytes
    issued_at_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedChallenge:
    """A new challenge and the token by which it comes back."""

    challenge: Challenge
    token: str


class Challenges(VersionedKeys[HMAC]):
    """Issues challenges under the version that generates and opens those of every version held."""

    __slots__ = ()

    usage = KeyUsage.CHALLENGE

    def _opened(self, key: Key) -> HMAC:
        return hmac_sm3_context(key)

    def issue(self, *, participant: str, issued_at_s: int) -> IssuedChallenge:
        """Draws a challenge for one participant.

        Args:
            participant: who may bring it back, as its certificate names it.
            issued_at_s: unix seconds, 32 bits.
        Source: profile of this project.
        """
        challenge = Challenge(
            process_factor=secrets.token_bytes(PROCESS_FACTOR_SIZE),
            original_data=secrets.token_bytes(ORIGINAL_DATA_SIZE),
            issued_at_s=issued_at_s,
        )
        version, context = self._generating()
        body = _BODY.pack(
            CHALLENGE_VERSION, version, challenge.process_factor, challenge.original_data, issued_at_s
        )
        token = encode_token(body + _tag(context, body, participant))
        return IssuedChallenge(challenge=challenge, token=token)

    def open(self, token: str, *, participant: str) -> Challenge:
        """Reads a token whose tag fits; says nothing about its life or earlier use.

        Args:
            token: as ``issue`` gave it.
            participant: who brings it, as its certificate names it.
        Raises:
            ChallengeInvalidError: form, version or tag is wrong, or it was issued to another participant.
        Source: profile of this project.
        """
        try:
            raw = decode_token(token, size=CHALLENGE_SIZE)
        except ValueError as error:
            raise ChallengeInvalidError(f"challenge: {error}") from None
        body, tag = raw[:-_TAG_SIZE], raw[-_TAG_SIZE:]
        layout, key_version, process_factor, original_data, issued_at_s = _BODY.unpack(body)
        context = self._state[1].get(key_version) or self._met_unknown(key_version)
        if layout != CHALLENGE_VERSION or context is None:
            raise ChallengeInvalidError("challenge: unknown version or key version")
        if not hmac.compare_digest(_tag(context, body, participant), tag):
            raise ChallengeInvalidError("challenge: wrong tag")
        return Challenge(process_factor=process_factor, original_data=original_data, issued_at_s=issued_at_s)


def _tag(context: HMAC, body: bytes, participant: str) -> bytes:
    # The body has a fixed length, so nothing of the participant can be read as part of it.
    keyed = context.copy()
    keyed.update(body + participant.encode())
    return keyed.finalize()[:_TAG_SIZE]
