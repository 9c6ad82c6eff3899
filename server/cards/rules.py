"""Pure rules over a card's one row of state: who may use it, how its counter moves, how its status changes."""

from datetime import date
from enum import IntEnum

from server.engine.operation import CardState

ATC_WINDOW_SIZE = 64
_WINDOW_MASK = (1 << ATC_WINDOW_SIZE) - 1
_SIGN = 1 << (ATC_WINDOW_SIZE - 1)


class CardStatus(IntEnum):
    """Life-cycle status, as stored and as on the wire (``onecard.v1.CardStatus``)."""

    SEALED = 1
    NORMAL = 2
    LOST = 3
    APPLICATION_LOCKED = 4
    TEMPORARILY_LOST = 5
    CANCELLED = 6


class LossKind(IntEnum):
    """How a loss is reported (``onecard.v1.LossKind``)."""

    FORMAL = 1
    TEMPORARY = 2


LOSS_STATUSES = frozenset({CardStatus.LOST, CardStatus.TEMPORARILY_LOST})


def is_lost(status: int) -> bool:
    return status in LOSS_STATUSES


def is_expired(expires_on: date, today: date) -> bool:
    """True from the day after the last day of validity on."""
    return today > expires_on


class CardUse(IntEnum):
    """Whether a card in its present state may be used."""

    USABLE = 1
    LOST = 2
    NOT_USABLE = 3
    EXPIRED = 4


def card_use(status: int, *, expires_on: date, today: date) -> CardUse:
    """The one rule for every credential: lost before otherwise unusable before expired."""
    if is_lost(status):
        return CardUse.LOST
    if status != CardStatus.NORMAL:
        return CardUse.NOT_USABLE
    return CardUse.EXPIRED if is_expired(expires_on, today) else CardUse.USABLE


def status_after_loss(status: int, kind: LossKind) -> CardStatus | None:
    """Status after a loss report, or None when the status does not admit one.

    A formal report may follow a temporary one; a temporary one never weakens a formal one.
    """
    if kind is LossKind.FORMAL and status in {CardStatus.NORMAL, CardStatus.TEMPORARILY_LOST}:
        return CardStatus.LOST
    if kind is LossKind.TEMPORARY and status == CardStatus.NORMAL:
        return CardStatus.TEMPORARILY_LOST
    return None


def status_after_lift(status: int) -> CardStatus | None:
    """Status after a loss report is lifted, or None when there is none."""
    return CardStatus.NORMAL if status in LOSS_STATUSES else None


def advance_atc(state: CardState, atc: int) -> bool:
    """Admits a transaction counter once and moves the window; False for a replay or one behind the window.

    Must be called for every valid cryptogram, whatever the decision. The bitmap's bit n stands for
    ``atc_highest - n``; it is stored as a signed 64-bit number. The counter never wraps: after 65535 a card
    makes no cryptograms any more (EMV 4.3 Book 2).

    Args:
        state: working copy under its lock; changed when the counter is new.
        atc: 1 to 65535.
    """
    window = state.atc_window & _WINDOW_MASK
    step = atc - state.atc_highest
    if step > 0:
        window = 1 if step >= ATC_WINDOW_SIZE else (window << step | 1) & _WINDOW_MASK
        state.atc_highest = atc
    else:
        bit = 1 << -step
        if -step >= ATC_WINDOW_SIZE or window & bit:
            return False
        window |= bit
    state.atc_window = window - (1 << ATC_WINDOW_SIZE) if window & _SIGN else window
    state.changed = True
    return True
