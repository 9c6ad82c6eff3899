"""Verification by chip, by code and by name and number, and the issue of codes, as the engine runs them."""

import hmac
from dataclasses import dataclass

from onecard.v1 import identity_pb2 as pb

from crypto.card_code import CardCode, CardCodes, CardCodeUse
from server.cards.chip_answers import AnswerOperation, JudgesAnswers
from server.cards.directory import CardFacts
from server.cards.presented import PresentedOperation, use_of
from server.cards.rules import CardUse
from server.cards.service import CardOperation
from server.cards.single_use import SingleUse, TokenOperation, TokenOutcome, TokenVerdict
from server.engine.operation import Batch, Capability, Outcome
from server.errors import StateConflictError
from server.identity.rules import (
    IDENTITY_USES,
    Level,
    Reason,
    reason_of_name,
    reason_of_token,
)

DONE = 1
NO_NAME = bytes(16)


@dataclass(slots=True, kw_only=True)
class CodeOperation(TokenOperation):
    """A card code to judge; ``code`` is None when it does not open."""

    code: CardCode | None


@dataclass(slots=True, kw_only=True)
class NameOperation(PresentedOperation):
    """Name and number to judge; ``name_index`` is the blind index of the stated name."""

    name_index: bytes

    def bind(self, card: CardFacts | None) -> None:
        """Takes a card of a region that is not the caller's like none: a refusal would tell that there is one."""
        if card is not None and self.caller.may_region(card.issuing_region):
            PresentedOperation.bind(self, card)


def _answer(reason: Reason, level: Level) -> pb.VerifyIdentityResponse:
    verified = reason is Reason.VERIFIED
    return pb.VerifyIdentityResponse(
        verified=verified,
        level=level if verified else Level.NONE,  # type: ignore[arg-type]
        reason=reason,  # type: ignore[arg-type]
    )


class VerifyByChip(JudgesAnswers):
    """The chip answers a challenge; the challenge serves once."""

    def decide(self, operation: AnswerOperation, batch: Batch) -> Outcome:
        verdict = self.judge_answer(operation, batch)
        reason = reason_of_token(verdict, use_of(batch, operation.facts))
        return TokenOutcome(message=_answer(reason, Level.CARD_PRESENT), reason=reason, verdict=verdict)

    def replay(self, operation: AnswerOperation, response: bytes) -> pb.VerifyIdentityResponse:
        return pb.VerifyIdentityResponse.FromString(response)


class VerifyByCode(SingleUse):
    """A card code serves once, within its life; the card's status is read at use."""

    def decide(self, operation: CodeOperation, batch: Batch) -> Outcome:
        verdict = self.judge(operation, batch)
        code = operation.code
        if verdict is TokenVerdict.GENUINE and code is not None and code.use not in IDENTITY_USES:
            reason = Reason.CODE_USE_NOT_ALLOWED
        else:
            reason = reason_of_token(verdict, use_of(batch, operation.facts))
        return TokenOutcome(message=_answer(reason, Level.CARD_PRESENT), reason=reason, verdict=verdict)

    def replay(self, operation: CodeOperation, response: bytes) -> pb.VerifyIdentityResponse:
        return pb.VerifyIdentityResponse.FromString(response)


class VerifyByName(Capability):
    """Name and number agree, and the holder's card is in use."""

    def decide(self, operation: NameOperation, batch: Batch) -> Outcome:
        facts = operation.facts
        name_index = facts.name_index if facts is not None else NO_NAME
        agrees = hmac.compare_digest(name_index, operation.name_index)
        reason = reason_of_name(agrees=agrees, use=use_of(batch, facts))
        return Outcome(message=_answer(reason, Level.KNOWLEDGE), reason=reason)

    def replay(self, operation: NameOperation, response: bytes) -> pb.VerifyIdentityResponse:
        return pb.VerifyIdentityResponse.FromString(response)


@dataclass(slots=True, kw_only=True)
class IssueCodeOperation(CardOperation):
    """A code to issue."""

    use: CardCodeUse


class IssueCodes(Capability):
    """Issues a code for a card in use, at the database's time."""

    def __init__(self, card_codes: CardCodes, *, life_s: int) -> None:
        self._card_codes = card_codes
        self._life_s = life_s

    def decide(self, operation: IssueCodeOperation, batch: Batch) -> Outcome:
        if use_of(batch, operation.facts) is not CardUse.USABLE:
            raise StateConflictError("CARD_NOT_USABLE", "the card is not in use", field="card")
        issued_at_s = int(batch.now.timestamp())
        code = self._card_codes.issue(
            card_alias=operation.facts.card_alias, use=operation.use, issued_at_s=issued_at_s
        )
        message = pb.IssueCardCodeResponse(
            card_code=code, expires_at_unix_ms=(issued_at_s + self._life_s) * 1000
        )
        return Outcome(message=message, reason=DONE)

    def replay(self, operation: IssueCodeOperation, response: bytes) -> pb.IssueCardCodeResponse:
        return pb.IssueCardCodeResponse.FromString(response)
