"""The one rule for a PIN that is presented, whichever capability it comes to: verified, changed, or with a payment.

Judged under the card's lock, in order, so that parallel guesses are counted one by one. Pure; must never see a PIN,
only what PINs are verified against.
"""

import hmac
from dataclasses import dataclass
from enum import Enum

from crypto.key_store.requests import PinReferences
from server.engine.operation import CardState
from server.errors import StateConflictError
from server.key_calls import key_store_unavailable

# Wrong PINs in a row after which nothing more is compared, until the PIN is unblocked or issued anew.
PIN_TRIES_MAX = 3


@dataclass(slots=True, repr=False)
class StoredPin:
    """A card's PIN reference and the version of the verification key that made it; a working copy under the lock.

    ``unblocks`` counts unblockings since the PIN was last right.
    """

    pvk_version: int
    reference: str
    unblocks: int = 0
    changed: bool = False

    def __repr__(self) -> str:
        return f"StoredPin(pvk_version={self.pvk_version})"


class PinVerdict(Enum):
    """What a presented PIN is worth; the first that applies is the verdict."""

    ACCEPTED = "accepted"
    NO_PIN = "no PIN"
    TRIES_EXCEEDED = "tries exceeded"
    BLOCK_INVALID = "block invalid"
    WRONG = "wrong"


def judge_pin(card: CardState, stored: StoredPin | None, presented: PinReferences | None) -> PinVerdict:
    """Compares a PIN and counts: a wrong one adds a try, an accepted one sets tries and unblockings back.

    Args:
        card: working copy under its lock, of a card that may be used.
        stored: what its PIN is verified against; None when it has none.
        presented: what the key store made of the PIN; None for a block that does not decode.
    Raises:
        StateConflictError, UnavailableError: as ``require_comparable``; nothing was changed.
    """
    if stored is None:
        return PinVerdict.NO_PIN
    if card.pin_tries >= PIN_TRIES_MAX:
        return PinVerdict.TRIES_EXCEEDED
    if presented is None:
        return PinVerdict.BLOCK_INVALID
    require_comparable(stored, presented)
    if not hmac.compare_digest(presented.by_version[stored.pvk_version], stored.reference):
        set_tries(card, card.pin_tries + 1)
        return PinVerdict.WRONG
    set_tries(card, 0)
    if stored.unblocks:
        stored.unblocks, stored.changed = 0, True
    return PinVerdict.ACCEPTED


def set_tries(card: CardState, tries: int) -> None:
    """Moves the counter of wrong PINs in a row."""
    if tries != card.pin_tries:
        card.pin_tries, card.changed = tries, True


def tries_left(card: CardState | None) -> int:
    """Tries before the PIN is blocked."""
    return max(0, PIN_TRIES_MAX - card.pin_tries) if card is not None else 0


def require_comparable(stored: StoredPin | None, presented: PinReferences | None) -> None:
    """For whoever changes something before it judges the PIN: ``judge_pin`` of the same two raises nothing after this.

    Raises:
        StateConflictError: the version that made the stored reference is gone: neither right nor wrong can be told.
        UnavailableError: another worker made it under a version that this one has not seen yet.
    """
    if stored is None or presented is None or stored.pvk_version in presented.by_version:
        return
    if stored.pvk_version > max(presented.by_version):
        raise key_store_unavailable()
    raise StateConflictError("KEY_STATE", "the verification key of the card's PIN is no longer usable")
