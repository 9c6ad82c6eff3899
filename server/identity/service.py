"""Verification by chip, by code and by name and number, and the issue of codes, as the engine runs them."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from onecard.v1 import identity_pb2 as pb

from crypto.card_code import CardCode, CardCodes, CardCodeUse
from crypto.key_store import KeyStore
from server.cards.directory import CardFacts
from server.cards.presented import (
    SPENDING,
    AnswerOperation,
    PresentedOperation,
    TokenVerdict,
    check_answers,
    find_spent,
    judge_answer,
    require_checked,
    spend,
    use_of,
)
from server.cards.rules import CardUse
from server.cards.service import CardOperation
from server.engine.operation import Batch, Capability, Outcome
from server.errors import StateConflictError
from server.identity.rules import (
    IDENTITY_USES,
    Level,
    Reason,
    judge_code,
    reason_of_name,
    reason_of_token,
)

DONE = 1
NO_NAME = bytes(16)


@dataclass(slots=True, kw_only=True)
class CodeOperation(PresentedOperation):
    """A card code to judge; ``code`` is None when it does not open."""

    code: CardCode | None
    token_digest: bytes


@dataclass(slots=True, kw_only=True)
class NameOperation(PresentedOperation):
    """Name and number to judge; ``name_index`` is the blind index of the stated name."""

    name_index: bytes

    def bind(self, card: CardFacts | None) -> None:
        """Takes a card of a region that is not the caller's like none: a refusal would tell that there is one."""
        if card is not None and self.caller.may_region(card.issuing_region):
            PresentedOperation.bind(self, card)


@dataclass(slots=True, kw_only=True)
class TokenOutcome(Outcome):
    """Carries the verdict on a single-use token to ``persist``."""

    verdict: TokenVerdict


def _answer(reason: Reason, level: Level) -> pb.VerifyIdentityResponse:
    verified = reason is Reason.VERIFIED
    return pb.VerifyIdentityResponse(
        verified=verified,
        level=level if verified else Level.NONE,  # type: ignore[arg-type]
        reason=reason,  # type: ignore[arg-type]
    )


class VerifyByChip(Capability):
    """The chip answers a challenge; the challenge serves once."""

    def __init__(self, key_store: KeyStore, *, challenge_life_s: int) -> None:
        self._key_store = key_store
        self._challenge_life_s = challenge_life_s

    def prepare(self, operations: Sequence[AnswerOperation]) -> None:
        check_answers(self._key_store, operations)

    async def read(
        self, connection: "asyncpg.Connection[Any]", operations: Sequence[AnswerOperation]
    ) -> set[bytes]:
        digests = [operation.answer.token_digest for operation in operations]
        return await find_spent(connection, digests, shard=operations[0].shard)

    def decide(self, operation: AnswerOperation, batch: Batch) -> Outcome:
        answer = operation.answer
        require_checked(answer)
        spent: set[bytes] = batch.facts[self]
        verdict = judge_answer(answer, spent=spent, now=batch.now, life_s=self._challenge_life_s)
        if verdict in SPENDING:
            spent.add(answer.token_digest)
        reason = reason_of_token(verdict, use_of(batch, operation.facts))
        return TokenOutcome(message=_answer(reason, Level.CARD_PRESENT), reason=reason, verdict=verdict)

    async def persist(
        self,
        connection: "asyncpg.Connection[Any]",
        batch: Batch,
        decided: Sequence[tuple[AnswerOperation, TokenOutcome]],
    ) -> None:
        tokens = [
            (operation.answer.token_digest, operation.answer.challenge.issued_at_s + self._challenge_life_s)
            for operation, outcome in decided
            if operation.answer.challenge is not None and outcome.verdict in SPENDING
        ]
        await spend(connection, tokens, shard=decided[0][0].shard)

    def replay(self, operation: AnswerOperation, response: bytes) -> pb.VerifyIdentityResponse:
        return pb.VerifyIdentityResponse.FromString(response)


class VerifyByCode(Capability):
    """A card code serves once, within its life; the card's status is read at use."""

    def __init__(self, *, life_s: int, skew_s: int) -> None:
        self._life_s = life_s
        self._skew_s = skew_s

    async def read(
        self, connection: "asyncpg.Connection[Any]", operations: Sequence[CodeOperation]
    ) -> set[bytes]:
        digests = [operation.token_digest for operation in operations]
        return await find_spent(connection, digests, shard=operations[0].shard)

    def decide(self, operation: CodeOperation, batch: Batch) -> Outcome:
        spent: set[bytes] = batch.facts[self]
        code = operation.code
        verdict = judge_code(
            code,
            used=operation.token_digest in spent,
            now=batch.now,
            life_s=self._life_s,
            skew_s=self._skew_s,
        )
        if verdict in SPENDING:
            spent.add(operation.token_digest)
        if verdict is TokenVerdict.GENUINE and code is not None and code.use not in IDENTITY_USES:
            reason = Reason.CODE_USE_NOT_ALLOWED
        else:
            reason = reason_of_token(verdict, use_of(batch, operation.facts))
        return TokenOutcome(message=_answer(reason, Level.CARD_PRESENT), reason=reason, verdict=verdict)

    async def persist(
        self,
        connection: "asyncpg.Connection[Any]",
        batch: Batch,
        decided: Sequence[tuple[CodeOperation, TokenOutcome]],
    ) -> None:
        tokens = [
            (operation.token_digest, operation.code.issued_at_s + self._life_s + self._skew_s)
            for operation, outcome in decided
            if operation.code is not None and outcome.verdict in SPENDING
        ]
        await spend(connection, tokens, shard=decided[0][0].shard)

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
