"""A chip's answer to a challenge, which card authentication and identity judge alike.

Answers are checked before the lock, in one key-store call for a batch; the challenge serves once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crypto.challenge import Challenge, Challenges
from crypto.errors import ChallengeInvalidError
from crypto.key_store.checks import InternalAuthenticationCheck
from crypto.token_text import token_digest
from server.cards.directory import CardFacts
from server.cards.single_use import SingleUse, TokenOperation, TokenVerdict
from server.edge.caller import Participant
from server.engine.operation import Batch
from server.errors import UnavailableError
from server.key_calls import KeyCalls, key_store_unavailable


@dataclass(slots=True, kw_only=True)
class AnswerOperation(TokenOperation):
    """An operation on a chip's answer; ``checked`` stays False when the key store did not answer."""

    challenge: Challenge | None
    response: bytes
    proven: bool = False
    checked: bool = False

    @property
    def asks_keys(self) -> bool:
        return self.facts is not None and self.challenge is not None and not self.checked


def opened_challenge(challenges: Challenges, token: str, caller: Participant) -> dict[str, Any]:
    """The fields of an ``AnswerOperation`` that come out of its token.

    ``challenge`` is None when the token is forged or was made for another participant.
    """
    try:
        challenge = challenges.open(token, participant=caller.participant_id)
    except ChallengeInvalidError:
        challenge = None
    return {
        "challenge": challenge,
        "token_digest": token_digest(token),
        "token_issued_at_s": challenge.issued_at_s if challenge is not None else None,
    }


class JudgesAnswers(SingleUse):
    """What capabilities that judge chip answers have in common."""

    def __init__(self, keys: KeyCalls, *, challenge_life_s: int) -> None:
        super().__init__(token_life_s=challenge_life_s)
        self._keys = keys

    async def prepare(self, operations: Sequence[AnswerOperation]) -> None:
        """Asks the key store once for all answers that have a card and a challenge; fails closed."""
        checks = [
            (operation, _internal_authentication(operation.facts, operation.challenge, operation.response))
            for operation in operations
            if operation.facts is not None and operation.challenge is not None and not operation.checked
        ]
        try:
            results = (
                await self._keys.ask(
                    lambda: self._keys.store.verify_internal_authentications([c for _, c in checks]),
                    first=True,
                )
                if checks
                else []
            )
        except UnavailableError:
            return
        for (operation, _), proven in zip(checks, results, strict=True):
            operation.proven = proven
        for operation in operations:
            operation.checked = True

    def judge_answer(self, operation: AnswerOperation, batch: Batch) -> TokenVerdict:
        """Judges challenge and answer.

        Raises:
            UnavailableError: the key store did not answer, so the operation fails closed.
        """
        if not operation.checked:
            raise key_store_unavailable()
        verdict = self.judge(operation, batch)
        if verdict is TokenVerdict.GENUINE and not operation.proven:
            return TokenVerdict.WRONG_ANSWER
        return verdict


def _internal_authentication(
    facts: CardFacts, challenge: Challenge, response: bytes
) -> InternalAuthenticationCheck:
    return InternalAuthenticationCheck(
        key=facts.ss_key,
        region=facts.issuing_region,
        atr_historical_bytes=facts.atr_historical_bytes,
        process_factor=challenge.process_factor,
        original_data=challenge.original_data,
        response=response,
    )
