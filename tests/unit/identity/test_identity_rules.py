"""From what was presented to yes or no: only what is genuine hears anything about the card."""

import pytest
from onecard.v1 import identity_pb2

from crypto.card_code import CardCodeUse
from server.cards.rules import CardUse
from server.cards.single_use import TokenVerdict
from server.identity.rules import (
    IDENTITY_USES,
    Level,
    Reason,
    reason_of_name,
    reason_of_token,
)

OF_CARD = {
    CardUse.USABLE: Reason.VERIFIED,
    CardUse.LOST: Reason.CARD_LOST,
    CardUse.NOT_USABLE: Reason.CARD_NOT_USABLE,
    CardUse.EXPIRED: Reason.CARD_EXPIRED,
}
OF_TOKEN = {
    TokenVerdict.INVALID: Reason.CREDENTIAL_INVALID,
    TokenVerdict.EXPIRED: Reason.CREDENTIAL_EXPIRED,
    TokenVerdict.USED: Reason.CREDENTIAL_USED,
    TokenVerdict.WRONG_ANSWER: Reason.CREDENTIAL_INVALID,
}


@pytest.mark.parametrize("use", [*CardUse, None])
@pytest.mark.parametrize("verdict", OF_TOKEN)
def test_credential_that_is_not_genuine_hears_nothing_of_the_card(
    verdict: TokenVerdict, use: CardUse | None
) -> None:
    assert reason_of_token(verdict, use) is OF_TOKEN[verdict]


@pytest.mark.parametrize("use", CardUse)
def test_genuine_credential_hears_the_cards_state(use: CardUse) -> None:
    assert reason_of_token(TokenVerdict.GENUINE, use) is OF_CARD[use]
    assert reason_of_name(agrees=True, use=use) is OF_CARD[use]


@pytest.mark.parametrize("use", [*CardUse, None])
def test_wrong_name_and_unknown_number_are_not_told_apart(use: CardUse | None) -> None:
    assert reason_of_name(agrees=False, use=use) is Reason.MISMATCH
    assert reason_of_name(agrees=True, use=None) is Reason.MISMATCH


def test_payment_code_is_no_proof_of_identity() -> None:
    assert set(CardCodeUse) - IDENTITY_USES == {CardCodeUse.PAYMENT}


def test_reasons_levels_and_uses_are_those_of_the_wire() -> None:
    for ours, wire, prefix in (
        (Reason, identity_pb2.IdentityReason, "IDENTITY_REASON_"),
        (CardCodeUse, identity_pb2.CardCodeUse, "CARD_CODE_USE_"),
    ):
        names = {name.removeprefix(prefix): number for name, number in wire.items() if number}
        assert {member.name: int(member) for member in ours} == names
    assert {int(level) for level in Level} == set(identity_pb2.AssuranceLevel.values())
