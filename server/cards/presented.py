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
from server.engine.operation import Batch
from server.errors import UnavailableError

log = logging.getLogger(__name__)

STATEMENTS = load("server.cards")


class TokenVerdict(Enum):
    """What a single-use token and the answer that came with it are worth."""

    GENUINE = "genuine"
    INVALID = "invalid"
    EXPIRED = "expired"
    USED = "used"
    WRONG_ANSWER = "wrong answer"


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
    """A chip's answer with the challenge it was made for; ``facts`` is None when no card has this code."""

    facts: CardFacts | None
    challenge: Challenge | None
    token_digest: bytes
    response: bytes
    proven: bool = False
    checked: bool = False


def open_answer(
    challenges: Challenges, facts: CardFacts | None, *, token: str, response: bytes, participant_id: str
) -> CheckedAnswer:
    """The answer with its challenge, which is None when it is forged or was made for another participant."""
    try:
        challenge = challenges.open(token, participant=participant_id)
    except ChallengeInvalidError:
        challenge = None
    return CheckedAnswer(facts, challenge, token_digest(token), response)


def check_cryptograms(key_store: KeyStore, cryptograms: Sequence[CheckedCryptogram]) -> None:
    """Asks the key store once for all; fails closed when it does not answer."""
    try:
        results = key_store.verify_arqcs([cryptogram.check for cryptogram in cryptograms])
    except KeyStoreError as error:
        log.error("key store: %s", type(error).__name__)
        return
    for cryptogram, verified in zip(cryptograms, results, strict=True):
        cryptogram.verified = verified
        cryptogram.checked = True


def check_answers(key_store: KeyStore, answers: Sequence[CheckedAnswer]) -> None:
    """Asks the key store once for all answers that have a card and a challenge; fails closed."""
    checkable = [answer for answer in answers if answer.facts is not None and answer.challenge is not None]
    checks = [_internal_authentication(answer) for answer in checkable]
    try:
        results = key_store.verify_internal_authentications(checks) if checks else []
    except KeyStoreError as error:
        log.error("key store: %s", type(error).__name__)
        return
    for answer, proven in zip(checkable, results, strict=True):
        answer.proven = proven
    for answer in answers:
        answer.checked = True


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
    if now.timestamp() > challenge.issued_at_s + life_s:
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


def _internal_authentication(answer: CheckedAnswer) -> InternalAuthenticationCheck:
    assert answer.facts is not None, "checked by the caller"
    assert answer.challenge is not None, "checked by the caller"
    return InternalAuthenticationCheck(
        key=answer.facts.ss_key,
        region=answer.facts.issuing_region,
        atr_historical_bytes=answer.facts.atr_historical_bytes,
        process_factor=answer.challenge.process_factor,
        original_data=answer.challenge.original_data,
        response=answer.response,
    )
