"""Tokens that serve once: card codes and challenges, whichever capability they come to.

A token is self-contained; what the database remembers is that it was used. All capabilities of a batch share one set of
used tokens, so that one token cannot serve two of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import asyncpg

from server.cards.presented import PresentedOperation
from server.database.statements import load
from server.engine.operation import Batch, Capability, Outcome

STATEMENTS = load("server.cards")
# A challenge is issued by a worker's clock and judged by the database's.
CLOCK_SKEW_MAX_S = 5


class TokenVerdict(Enum):
    """What a single-use token, and the answer that came with it, are worth."""

    GENUINE = "genuine"
    INVALID = "invalid"
    EXPIRED = "expired"
    USED = "used"
    WRONG_ANSWER = "wrong answer"


# Verdicts that use a token up. A wrong answer does too: a challenge cannot be tried a second time.
SPENDING = frozenset({TokenVerdict.GENUINE, TokenVerdict.WRONG_ANSWER})


@dataclass(slots=True, kw_only=True)
class TokenOperation(PresentedOperation):
    """An operation that uses a token; ``token_issued_at_s`` is None when it is forged or another participant's."""

    token_digest: bytes
    token_issued_at_s: int | None


@dataclass(slots=True, kw_only=True)
class TokenOutcome(Outcome):
    """Carries the verdict on the token to ``persist``."""

    verdict: TokenVerdict


def judge_token(issued_at_s: int | None, *, used: bool, now: datetime, life_s: int) -> TokenVerdict:
    """Judges a token by the database's time ``now``; ``issued_at_s`` is None for one that does not open."""
    if issued_at_s is None:
        return TokenVerdict.INVALID
    if not issued_at_s - CLOCK_SKEW_MAX_S <= now.timestamp() <= issued_at_s + life_s:
        return TokenVerdict.EXPIRED
    return TokenVerdict.USED if used else TokenVerdict.GENUINE


class SingleUse(Capability):
    """What capabilities that take tokens have in common."""

    def __init__(self, *, token_life_s: int) -> None:
        self._token_life_s = token_life_s

    async def read(
        self, connection: "asyncpg.Connection[Any]", operations: Sequence[TokenOperation], batch: Batch
    ) -> None:
        await read_spent_tokens(connection, [operation.token_digest for operation in operations], batch)

    def judge(self, operation: TokenOperation, batch: Batch) -> TokenVerdict:
        """Judges the operation's token and uses it up when it is genuine."""
        verdict = judge_token(
            operation.token_issued_at_s,
            used=operation.token_digest in batch.spent_tokens,
            now=batch.now,
            life_s=self._token_life_s,
        )
        if verdict is TokenVerdict.GENUINE:
            batch.spent_tokens.add(operation.token_digest)
        return verdict

    async def persist(
        self,
        connection: "asyncpg.Connection[Any]",
        batch: Batch,
        decided: Sequence[tuple[TokenOperation, TokenOutcome]],
    ) -> None:
        """Remembers the tokens that were used up: see ``spend_tokens``."""
        expiries_s = {
            operation.token_digest: operation.token_issued_at_s + self._token_life_s
            for operation, outcome in decided
            if operation.token_issued_at_s is not None and outcome.verdict in SPENDING
        }
        await spend_tokens(connection, expiries_s, batch)


async def read_spent_tokens(
    connection: "asyncpg.Connection[Any]", digests: Iterable[bytes], batch: Batch
) -> None:
    """Notes in the batch which tokens were used before."""
    for shard, own in _by_token_shard(digests, batch.shard_count).items():
        rows = await connection.fetch(STATEMENTS["find_spent_tokens"], own, shard)
        batch.spent_tokens.update(row[0] for row in rows)


async def spend_tokens(
    connection: "asyncpg.Connection[Any]", expiries_s: Mapping[bytes, int], batch: Batch
) -> None:
    """Remembers tokens as used until they expire, unix seconds by digest.

    Raises:
        asyncpg.UniqueViolationError: one was used meanwhile, with another card; the batch is decided again.
    """
    for shard, digests in _by_token_shard(expiries_s, batch.shard_count).items():
        moments = [datetime.fromtimestamp(expiries_s[digest], UTC) for digest in digests]
        await connection.execute(STATEMENTS["spend_tokens"], digests, moments, shard)


def token_shard(digest: bytes, shard_count: int) -> int:
    """The shard that remembers a token: one of the token's own, whatever card comes with it."""
    return digest[0] % shard_count


def _by_token_shard(digests: Iterable[bytes], shard_count: int) -> dict[int, list[bytes]]:
    """Digests by the shard that remembers them; shards and digests ascend, so that two writers wait in one order."""
    shards: dict[int, list[bytes]] = {}
    for digest in sorted(digests, key=lambda digest: (token_shard(digest, shard_count), digest)):
        shards.setdefault(token_shard(digest, shard_count), []).append(digest)
    return shards
