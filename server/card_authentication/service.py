"""The two ways in which a chip proves itself, as the engine runs them."""

from collections.abc import Sequence

from onecard.v1 import card_authentication_pb2 as pb

from server.card_authentication.rules import Reason, reason_of_answer, reason_of_cryptogram
from server.cards.chip_answers import AnswerOperation, JudgesAnswers
from server.cards.presented import CryptogramOperation, check_cryptograms, require_checked, use_of
from server.cards.rules import advance_atc
from server.cards.single_use import TokenOutcome
from server.engine.operation import Batch, Capability, Outcome
from server.key_calls import KeyCalls

ARC_APPROVED = b"00"
ARC_DECLINED = b"05"


class JudgeAnswers(JudgesAnswers):
    """Internal authentication: a challenge serves once, for the caller it was made for, for a short time."""

    def decide(self, operation: AnswerOperation, batch: Batch) -> Outcome:
        verdict = self.judge_answer(operation, batch)
        reason = reason_of_answer(verdict, use_of(batch, operation.facts))
        message = pb.AuthenticateCardResponse(authenticated=reason is Reason.AUTHENTIC, reason=reason)  # type: ignore[arg-type]
        return TokenOutcome(message=message, reason=reason, verdict=verdict)

    def replay(self, operation: AnswerOperation, response: bytes) -> pb.AuthenticateCardResponse:
        return pb.AuthenticateCardResponse.FromString(response)


class JudgeCryptograms(Capability):
    """ARQC outside a money operation: moves the ATC window on every valid one and answers with an ARPC."""

    def __init__(self, keys: KeyCalls) -> None:
        self._keys = keys

    async def prepare(self, operations: Sequence[CryptogramOperation]) -> None:
        await check_cryptograms(self._keys, operations, arcs=(ARC_APPROVED, ARC_DECLINED))

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
