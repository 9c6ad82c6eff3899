"""Pure rules: from what the chip proved and the state of its card to the reason of the answer."""

from enum import IntEnum

from server.cards.rules import CardUse
from server.cards.single_use import TokenVerdict


class Reason(IntEnum):
    """``onecard.v1.CardAuthenticationReason``, in order of precedence."""

    AUTHENTIC = 1
    NOT_AUTHENTIC = 2
    CHALLENGE_INVALID = 3
    CHALLENGE_USED = 4
    ATC_REPLAYED = 5
    CARD_LOST = 6
    CARD_NOT_USABLE = 7
    CARD_EXPIRED = 8


_OF_TOKEN = {
    TokenVerdict.INVALID: Reason.CHALLENGE_INVALID,
    TokenVerdict.EXPIRED: Reason.CHALLENGE_INVALID,
    TokenVerdict.USED: Reason.CHALLENGE_USED,
    TokenVerdict.WRONG_ANSWER: Reason.NOT_AUTHENTIC,
}
_OF_CARD = {
    CardUse.USABLE: Reason.AUTHENTIC,
    CardUse.LOST: Reason.CARD_LOST,
    CardUse.NOT_USABLE: Reason.CARD_NOT_USABLE,
    CardUse.EXPIRED: Reason.CARD_EXPIRED,
}


def reason_of_answer(verdict: TokenVerdict, use: CardUse | None) -> Reason:
    """For an answer to a challenge; ``use`` is None when no card has the code. Only a proven chip hears its status."""
    if verdict is not TokenVerdict.GENUINE:
        return _OF_TOKEN[verdict]
    return Reason.NOT_AUTHENTIC if use is None else _OF_CARD[use]


def reason_of_cryptogram(*, valid: bool, fresh: bool, use: CardUse | None) -> Reason:
    """For a cryptogram: ``fresh`` tells that its counter was admitted."""
    if not valid or use is None:
        return Reason.NOT_AUTHENTIC
    return _OF_CARD[use] if fresh else Reason.ATC_REPLAYED
