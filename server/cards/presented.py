"""What a card presents and how it is judged: cryptograms, answers to challenges, and single-use tokens.

Card authentication, identity and authorization share these, so that a card is judged alike by all of them. Checks run
before the lock, in one key-store call for a batch; single use is decided under the lock of the card.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import asyncpg

from crypto.challenge import Challenge, Challenges
from crypto.errors import ChallengeInvalidError, KeyStoreError
from crypto.key_store import KeyStore
from crypto.key_store.checks import ArqcCheck, InternalAuthenticationCheck, VerifiedArqc
from crypto.token_text import token_digest
from server.cards.directory import CardFacts
from server.cards.rules import CardUse, card_use
from server.database.statements import load
from server.edge.caller import Participant
from server.engine.operation import Batch, Operation
from server.errors import UnavailableError

log = logging.getLogger(__name__)

STATEMENTS = load("server.cards")
# A challenge is issued by the worker's clock and judged by the database's.
CLOCK_SKEW_MAX_S = 5


class TokenVerdict(Enum):
    """What a single-use token and the answer that came with it are worth."""

    GENUINE = "genuine"
    INVALID = "invalid"
    EXPIRED = "expired"
    USED = "used"
    WRONG_ANSWER = "wrong answer"


@dataclass(slots=True, kw_only=True)
class PresentedOperation(Operation):
    """An operation on what was presented: a card that need not exist, in a region that must be the caller's."""

    caller: Participant
    facts: CardFacts | None = None

    def bind(self, card: CardFacts | None) -> None:
        """
        Raises:
            NotGrantedError: the caller holds no grant of the card's region.
        """
        if card is not None:
            self.caller.require_region(card.issuing_region)
            self.facts = card
            self.card_id = card.card_id
            self.shard = card.shard


# Verdicts that use a token up. A wrong answer does too: a challenge cannot be tried a second time.
SPENDING = frozenset({TokenVerdict.GENUINE, TokenVerdict.WRONG_ANSWER})


@dataclass(slots=True)
class CheckedCryptogram:
    """A cryptogram and what the key store said of it; ``checked`` stays False when it did not answer."""

    check: ArqcCheck
    verified: VerifiedArqc | None = None
    checked: bool = False


@dataclass(slots=True)
class CheckedAnswer:
    """A chip's answer with the challenge it was made for."""

    challenge: Challenge | None
    token_digest: bytes
    response: bytes
    proven: bool = False
    checked: bool = False


@dataclass(slots=True)
class PresentedCryptogram:
    """An application cryptogram as presented: ``data`` is what the card signed, encoded."""

    pan: str
    psn: str
    data: bytes
    atc: int
    arqc: bytes


@dataclass(slots=True, kw_only=True)
class CryptogramOperation(PresentedOperation):
    """An operation on a cryptogram; ``cryptogram`` is None when no card has the PAN, or none was presented."""

    presented: PresentedCryptogram | None
    cryptogram: CheckedCryptogram | None = None

    def bind(self, card: CardFacts | None) -> None:
        """
        Raises:
            NotGrantedError: the caller holds no grant of the card's region.
        """
        # By name: zero-argument super() does not work in a dataclass with slots.
        PresentedOperation.bind(self, card)
        presented = self.presented
        if card is not None and presented is not None:
            self.cryptogram = CheckedCryptogram(
                ArqcCheck(
                    key=card.ac_key,
                    pan=presented.pan,
                    psn=presented.psn,
                    data=presented.data,
                    atc=presented.atc,
                    arqc=presented.arqc,
                )
            )


@dataclass(slots=True, kw_only=True)
class AnswerOperation(PresentedOperation):
    """An operation on a chip's answer to a challenge."""

    answer: CheckedAnswer


def open_answer(challenges: Challenges, *, token: str, response: bytes, participant_id: str) -> CheckedAnswer:
    """The answer with its challenge, which is None when it is forged or was made for another participant."""
    try:
        challenge = challenges.open(token, participant=participant_id)
    except ChallengeInvalidError:
        challenge = None
    return CheckedAnswer(challenge, token_digest(token), response)


def check_cryptograms(key_store: KeyStore, operations: Sequence[CryptogramOperation]) -> None:
    """Asks the key store once for all that are not yet checked; fails closed when it does not answer."""
    cryptograms = [o.cryptogram for o in operations if o.cryptogram is not None and not o.cryptogram.checked]
    if not cryptograms:
        return
    try:
        results = key_store.verify_arqcs([cryptogram.check for cryptogram in cryptograms])
    except KeyStoreError as error:
        log.error("key store: %s", type(error).__name__)
        return
    for cryptogram, verified in zip(cryptograms, results, strict=True):
        cryptogram.verified = verified
        cryptogram.checked = True


def check_answers(key_store: KeyStore, operations: Sequence[AnswerOperation]) -> None:
    """Asks the key store once for all answers that have a card and a challenge; fails closed."""
    checks = [
        (
            operation.answer,
            _internal_authentication(operation.facts, operation.answer.challenge, operation.answer),
        )
        for operation in operations
        if operation.facts is not None and operation.answer.challenge is not None
    ]
    try:
        results = key_store.verify_internal_authentications([check for _, check in checks]) if checks else []
    except KeyStoreError as error:
        log.error("key store: %s", type(error).__name__)
        return
    for (answer, _), proven in zip(checks, results, strict=True):
        answer.proven = proven
    for operation in operations:
        operation.answer.checked = True


def require_checked(presented: CheckedCryptogram | CheckedAnswer) -> None:
    """
    Raises:
        UnavailableError: the key store did not answer, so the operation fails closed.
    """
    if not presented.checked:
        raise UnavailableError("KEY_STORE_UNAVAILABLE", "the key store does not answer", retry_delay_ms=500)


def judge_answer(answer: CheckedAnswer, *, spent: set[bytes], now: datetime, life_s: int) -> TokenVerdict:
    """Judges an answer under the lock of its card; ``now`` is the database's time."""
    challenge = answer.challenge
    if challenge is None:
        return TokenVerdict.INVALID
    if not challenge.issued_at_s - CLOCK_SKEW_MAX_S <= now.timestamp() <= challenge.issued_at_s + life_s:
        return TokenVerdict.EXPIRED
    if answer.token_digest in spent:
        return TokenVerdict.USED
    return TokenVerdict.GENUINE if answer.proven else TokenVerdict.WRONG_ANSWER


def use_of(batch: Batch, facts: CardFacts | None) -> CardUse | None:
    """Whether the card may be used, by its locked row; None when there is no such card."""
    state = batch.cards.get(facts.card_id) if facts is not None else None
    if facts is None or state is None:
        return None
    return card_use(state.status, expires_on=facts.expires_on, today=batch.today)


async def find_spent(
    connection: "asyncpg.Connection[Any]", digests: Sequence[bytes], *, shard: int
) -> set[bytes]:
    """Which tokens were used before; under the locks of their cards."""
    if not digests:
        return set()
    rows = await connection.fetch(STATEMENTS["find_spent_tokens"], digests, shard)
    return {row[0] for row in rows}


async def spend(
    connection: "asyncpg.Connection[Any]", tokens: Sequence[tuple[bytes, int]], *, shard: int
) -> None:
    """Marks tokens (digest, last unix second of their life) as used.

    Raises:
        asyncpg.UniqueViolationError: one was used meanwhile; the batch is decided again.
    """
    if tokens:
        digests, expiries = zip(*tokens, strict=True)
        moments = [datetime.fromtimestamp(expiry_s, UTC) for expiry_s in expiries]
        await connection.execute(STATEMENTS["spend_tokens"], digests, moments, shard)


def _internal_authentication(
    facts: CardFacts, challenge: Challenge, answer: CheckedAnswer
) -> InternalAuthenticationCheck:
    return InternalAuthenticationCheck(
        key=facts.ss_key,
        region=facts.issuing_region,
        atr_historical_bytes=facts.atr_historical_bytes,
        process_factor=challenge.process_factor,
        original_data=challenge.original_data,
        response=answer.response,
    )
