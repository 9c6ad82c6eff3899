"""The two ways in which a chip proves itself, as the engine runs them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from onecard.v1 import card_authentication_pb2 as pb

from crypto.key_store import KeyStore
from server.card_authentication.rules import Reason, reason_of_answer, reason_of_cryptogram
from server.cards.presented import (
    SPENDING,
    AnswerOperation,
    CryptogramOperation,
    TokenVerdict,
    check_answers,
    check_cryptograms,
    find_spent,
    judge_answer,
    require_checked,
    spend,
    use_of,
)
from server.cards.rules import advance_atc
from server.engine.operation import Batch, Capability, Outcome

ARC_APPROVED = b"00"
ARC_DECLINED = b"05"


@dataclass(slots=True, kw_only=True)
class AnswerOutcome(Outcome):
    """Carries the verdict on the challenge to ``persist``."""

    verdict: TokenVerdict


class JudgeAnswers(Capability):
    """Internal authentication: a challenge serves once, for the caller it was made for, for a short time."""

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
        reason = reason_of_answer(verdict, use_of(batch, operation.facts))
        if verdict in SPENDING:
            spent.add(answer.token_digest)
        message = pb.AuthenticateCardResponse(authenticated=reason is Reason.AUTHENTIC, reason=reason)  # type: ignore[arg-type]
        return AnswerOutcome(message=message, reason=reason, verdict=verdict)

    async def persist(
        self,
        connection: "asyncpg.Connection[Any]",
        batch: Batch,
        decided: Sequence[tuple[AnswerOperation, AnswerOutcome]],
    ) -> None:
        tokens = [
            (operation.answer.token_digest, operation.answer.challenge.issued_at_s + self._challenge_life_s)
            for operation, outcome in decided
            if operation.answer.challenge is not None and outcome.verdict in SPENDING
        ]
        await spend(connection, tokens, shard=decided[0][0].shard)

    def replay(self, operation: AnswerOperation, response: bytes) -> pb.AuthenticateCardResponse:
        return pb.AuthenticateCardResponse.FromString(response)


class JudgeCryptograms(Capability):
    """ARQC outside a money operation: moves the ATC window on every valid one and answers with an ARPC."""

    def __init__(self, key_store: KeyStore) -> None:
        self._key_store = key_store

    def prepare(self, operations: Sequence[CryptogramOperation]) -> None:
        check_cryptograms(self._key_store, operations)

    def decide(self, operation: CryptogramOperation, batch: Batch) -> Outcome:
        cryptogram = operation.cryptogram
        verified = None
        fresh = False
        if cryptogram is not None:
            require_checked(cryptogram)
            verified = cryptogram.verified
            state = batch.cards.get(operation.card_id or 0)
            if verified is not None and state is not None:
                fresh = advance_atc(state, cryptogram.check.atc)
        reason = reason_of_cryptogram(
            valid=verified is not None, fresh=fresh, use=use_of(batch, operation.facts)
        )
        authentic = reason is Reason.AUTHENTIC
        arpc = verified.arpc(ARC_APPROVED if authentic else ARC_DECLINED) if verified is not None else b""
        message = pb.AuthenticateCardResponse(authenticated=authentic, reason=reason, arpc=arpc)  # type: ignore[arg-type]
        return Outcome(message=message, reason=reason)

    def replay(self, operation: CryptogramOperation, response: bytes) -> pb.AuthenticateCardResponse:
        return pb.AuthenticateCardResponse.FromString(response)
