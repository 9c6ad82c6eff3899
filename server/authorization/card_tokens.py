"""Card on file: a participant's token is made the name of a card, and ended, under the card's lock.

A token is ended for the very next operation at every worker, and never names another card.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from onecard.v1 import authorization_pb2 as pb

from server.cards.card_tokens import CardToken, read_card_tokens, token_in_force, write_card_tokens
from server.cards.directory import CardFacts
from server.cards.presented import PresentedOperation, use_of
from server.cards.rules import CardUse
from server.cards.service import CardOperation
from server.cards.store import taken_credentials
from server.engine.operation import Batch, Capability, Outcome
from server.errors import AlreadyExistsError, NotFoundError, StateConflictError

# Reason of registrations and revocations in `operations` and `access_log`.
DONE = 1


@dataclass(slots=True, kw_only=True)
class RegisterTokenOperation(CardOperation):
    """A token to register; ``token_index`` has 16 bytes."""

    token_index: bytes


@dataclass(slots=True, kw_only=True)
class RevokeTokenOperation(PresentedOperation):
    """A token to end; its ``card_index`` is the token's."""

    def bind(self, card: CardFacts | None) -> None:
        """
        Raises:
            NotFoundError: no such token, or of a card of a region that is not the caller's.
        """
        if card is None or not self.caller.may_region(card.issuing_region):
            raise _unknown_token()
        PresentedOperation.bind(self, card)


class RegisterTokens(Capability):
    """Lets tokens name cards that are in use."""

    async def read(
        self,
        connection: "asyncpg.Connection[Any]",
        operations: Sequence[RegisterTokenOperation],
        batch: Batch,
    ) -> set[bytes]:
        return await taken_credentials(connection, [operation.token_index for operation in operations])

    def decide(self, operation: RegisterTokenOperation, batch: Batch) -> Outcome:
        index, facts = operation.token_index, operation.facts
        if use_of(batch, facts) is not CardUse.USABLE:
            raise StateConflictError("CARD_NOT_USABLE", "the card is not in use", field="card")
        if index in batch.facts[self] or index in batch.card_tokens:
            raise AlreadyExistsError("CARD_TOKEN_TAKEN", "the token names a card already", field="card_token")
        batch.card_tokens[index] = CardToken(
            facts.shard, facts.card_id, participant_id=operation.participant_id, changed=True
        )
        return Outcome(message=pb.RegisterCardTokenResponse(), reason=DONE)

    async def persist(
        self, connection: "asyncpg.Connection[Any]", batch: Batch, decided: Sequence[Any]
    ) -> None:
        await write_card_tokens(connection, batch)

    def replay(self, operation: RegisterTokenOperation, response: bytes) -> pb.RegisterCardTokenResponse:
        return pb.RegisterCardTokenResponse.FromString(response)


class RevokeTokens(Capability):
    """Ends tokens, whatever their cards are now."""

    async def read(
        self, connection: "asyncpg.Connection[Any]", operations: Sequence[RevokeTokenOperation], batch: Batch
    ) -> None:
        indexes = [(o.card_index, o.shard) for o in operations if o.card_index is not None]
        await read_card_tokens(connection, indexes, batch)

    def decide(self, operation: RevokeTokenOperation, batch: Batch) -> Outcome:
        assert operation.card_index is not None, "the token's"
        token = token_in_force(batch, operation.card_index)
        if token is None:
            raise _unknown_token()
        token.is_revoked = token.changed = True
        return Outcome(message=pb.RevokeCardTokenResponse(), reason=DONE)

    async def persist(
        self, connection: "asyncpg.Connection[Any]", batch: Batch, decided: Sequence[Any]
    ) -> None:
        await write_card_tokens(connection, batch)

    def replay(self, operation: RevokeTokenOperation, response: bytes) -> pb.RevokeCardTokenResponse:
        return pb.RevokeCardTokenResponse.FromString(response)


def _unknown_token() -> NotFoundError:
    return NotFoundError("CARD_TOKEN_UNKNOWN", "the caller has no such token in use", field="card_token")
