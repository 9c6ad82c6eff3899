"""Card on file: a participant's own name for a card, from its registration to its end.

A token is known by a blind index of participant and token, and kept nowhere in clear. Which card it names never
changes, so the directory resolves and remembers it like any credential; whether it is in force is read and changed
under the card's lock. The working copies stand in the batch, for all capabilities.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import asyncpg

from crypto.sealing import BlindIndex
from server.cards.directory import CredentialKind
from server.database.statements import load
from server.engine.operation import Batch

STATEMENTS = load("server.cards")


@dataclass(slots=True)
class CardToken:
    """Working copy of a ``card_tokens`` row; ``participant_id`` is that of a new one, else None."""

    shard: int
    card_id: int
    is_revoked: bool = False
    participant_id: str | None = None
    changed: bool = False


def token_index(blind_index: BlindIndex, token: str, *, participant_id: str) -> bytes:
    """What a participant's token is known by, 16 bytes: another participant's token of the same text is another."""
    return blind_index.of(f"{participant_id}/{token}", kind=CredentialKind.CARD_TOKEN)


def token_in_force(batch: Batch, index: bytes) -> CardToken | None:
    """The token that was read into the batch; None for one that was never registered, or was revoked."""
    token: CardToken | None = batch.card_tokens.get(index)
    return None if token is None or token.is_revoked else token


async def read_card_tokens(
    connection: "asyncpg.Connection[Any]", indexes: Iterable[tuple[bytes, int]], batch: Batch
) -> None:
    """Reads tokens of locked cards into the batch; ``indexes`` are pairs of an index and its card's shard."""
    by_shard: dict[int, set[bytes]] = {}
    for index, shard in indexes:
        if index not in batch.card_tokens:
            by_shard.setdefault(shard, set()).add(index)
    for shard, missing in by_shard.items():
        for index, card_id, is_revoked in await connection.fetch(
            STATEMENTS["find_card_tokens"], missing, shard
        ):
            batch.card_tokens[index] = CardToken(shard, card_id, is_revoked)


async def write_card_tokens(connection: "asyncpg.Connection[Any]", batch: Batch) -> None:
    """Writes the tokens that are new or revoked, of whichever capability; once for each change.

    Raises:
        asyncpg.UniqueViolationError: one was registered meanwhile, for another card; the batch is decided again.
    """
    changed = [(index, token) for index, token in sorted(batch.card_tokens.items()) if token.changed]
    for shard in sorted({token.shard for _, token in changed}):
        own = [(index, token) for index, token in changed if token.shard == shard]
        new = [(index, token.card_id, token.participant_id) for index, token in own if token.participant_id]
        if new:
            await connection.execute(
                STATEMENTS["insert_card_tokens"], shard, batch.now, *zip(*new, strict=True)
            )
        revoked = [index for index, token in own if token.is_revoked]
        if revoked:
            await connection.execute(STATEMENTS["revoke_card_tokens"], shard, batch.now, revoked)
    for _, token in changed:
        token.changed, token.participant_id = False, None
