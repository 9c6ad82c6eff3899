"""Pure rules: from what was presented and the state of the card to yes or no, a level and a reason."""

from enum import IntEnum

from crypto.card_code import CardCodeUse
from server.cards.rules import CardUse
from server.cards.single_use import TokenVerdict


class Reason(IntEnum):
    """``onecard.v1.IdentityReason``."""

    VERIFIED = 1
    MISMATCH = 2
    CREDENTIAL_INVALID = 3
    CREDENTIAL_EXPIRED = 4
    CREDENTIAL_USED = 5
    CODE_USE_NOT_ALLOWED = 6
    CARD_LOST = 7
    CARD_NOT_USABLE = 8
    CARD_EXPIRED = 9


class Level(IntEnum):
    """``onecard.v1.AssuranceLevel``."""

    NONE = 0
    KNOWLEDGE = 1
    CARD_PRESENT = 2


_OF_TOKEN = {
    TokenVerdict.INVALID: Reason.CREDENTIAL_INVALID,
    TokenVerdict.EXPIRED: Reason.CREDENTIAL_EXPIRED,
    TokenVerdict.USED: Reason.CREDENTIAL_USED,
    TokenVerdict.WRONG_ANSWER: Reason.CREDENTIAL_INVALID,
}
_OF_CARD = {
    CardUse.USABLE: Reason.VERIFIED,
    CardUse.LOST: Reason.CARD_LOST,
    CardUse.NOT_USABLE: Reason.CARD_NOT_USABLE,
    CardUse.EXPIRED: Reason.CARD_EXPIRED,
}
# A payment code says that its holder wants to pay, not who they are.
IDENTITY_USES = frozenset({CardCodeUse.INQUIRY, CardCodeUse.OTHER, CardCodeUse.CARE_ELSEWHERE})


def reason_of_token(verdict: TokenVerdict, use: CardUse | None) -> Reason:
    """For a chip's answer or a code: only a genuine one hears the card's status."""
    if verdict is not TokenVerdict.GENUINE:
        return _OF_TOKEN[verdict]
    return Reason.MISMATCH if use is None else _OF_CARD[use]


def reason_of_name(*, agrees: bool, use: CardUse | None) -> Reason:
    """For name and number: an unknown number and a wrong name are not told apart."""
    return _OF_CARD[use] if agrees and use is not None else Reason.MISMATCH
