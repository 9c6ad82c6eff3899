"""Issue, status and loss: the steps of each, as the engine runs them."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from onecard.v1 import cards_pb2

from crypto.key_store import KeyStore
from server.cards import rules
from server.cards.directory import (
    AC_KEY_NAMES,
    SS_KEY_NAMES,
    CardFacts,
    CredentialKind,
)
from server.cards.store import CardIds, NewCard, RowMaker, allocate_ids, insert_cards, taken_credentials
from server.edge.caller import Participant
from server.engine.operation import Batch, Capability, CardState, Operation, Outcome
from server.errors import AlreadyExistsError, NotFoundError, StateConflictError

# Reasons of life-cycle rows in `operations` and `access_log`.
DONE = 1
CARD_ALIAS_SIZE = 8


def locked_state(batch: Batch, card_id: int) -> CardState:
    """The working copy of a card that the directory knows.

    Raises:
        NotFoundError: the card left the database since it was resolved.
    """
    state = batch.cards.get(card_id)
    if state is None:
        raise NotFoundError("CARD_UNKNOWN", "no such card", field="card")
    return state


def active_key_versions(key_store: KeyStore, cipher: int) -> tuple[int, int]:
    """Versions of the AC and social-security keys that new cards are made for."""
    return key_store.active(AC_KEY_NAMES[cipher]).version, key_store.active(SS_KEY_NAMES[cipher]).version


def new_card_alias() -> bytes:
    """A random alias for the electronic card, which says nothing about the card."""
    return secrets.token_bytes(CARD_ALIAS_SIZE)


@dataclass(slots=True, kw_only=True)
class IssueOperation(Operation):
    """A card to issue."""

    card: NewCard
    indexes: dict[CredentialKind, bytes]


@dataclass(slots=True, kw_only=True)
class IssueOutcome(Outcome):
    """Carries the new card's numbers to ``persist``."""

    ids: CardIds


class IssueCards(Capability):
    """Writes a holder and a card; an identifier that already names a card is refused by name."""

    def __init__(self, row_maker: RowMaker) -> None:
        self._row_maker = row_maker

    async def read(
        self, connection: "asyncpg.Connection[Any]", operations: Sequence[IssueOperation], batch: Batch
    ) -> tuple[set[bytes], list[CardIds]]:
        indexes = [index for operation in operations for index in operation.indexes.values()]
        taken = await taken_credentials(connection, indexes)
        return taken, await allocate_ids(connection, len(operations))

    def decide(self, operation: IssueOperation, batch: Batch) -> Outcome:
        taken, free_ids = batch.facts[self]
        for kind, index in operation.indexes.items():
            if index in taken:
                raise AlreadyExistsError(
                    "CARD_ALREADY_ISSUED", f"a card with this {kind} was issued before", field=kind
                )
        # The next card of this batch with one of these identifiers is refused too.
        taken.update(operation.indexes.values())
        ids = free_ids.pop()
        operation.card_id, operation.account_id = ids.card_id, ids.account_id
        message = cards_pb2.IssueCardResponse(card_id=ids.card_id, status=rules.CardStatus.NORMAL)  # type: ignore[arg-type]
        return IssueOutcome(message=message, reason=DONE, ids=ids)

    async def persist(
        self,
        connection: "asyncpg.Connection[Any]",
        batch: Batch,
        decided: Sequence[tuple[IssueOperation, IssueOutcome]],
    ) -> None:
        await insert_cards(
            connection,
            [(outcome.ids, operation.card) for operation, outcome in decided],
            shard=decided[0][0].shard,
            row_maker=self._row_maker,
        )

    def replay(self, operation: IssueOperation, response: bytes) -> cards_pb2.IssueCardResponse:
        return cards_pb2.IssueCardResponse.FromString(response)


@dataclass(slots=True, kw_only=True)
class CardOperation(Operation):
    """An operation on a card that must exist and be the caller's business."""

    caller: Participant
    facts: CardFacts = field(init=False)

    def bind(self, card: CardFacts | None) -> None:
        """
        Raises:
            NotFoundError: no such card, or one of a region that is not the caller's: a refusal would tell that
                there is one.
        """
        if card is None or not self.caller.may_region(card.issuing_region):
            raise NotFoundError("CARD_UNKNOWN", "no such card", field="card")
        self.facts = card
        self.card_id = card.card_id
        self.shard = card.shard


@dataclass(slots=True, kw_only=True)
class LossOperation(CardOperation):
    """A loss to report."""

    loss_kind: rules.LossKind


class ReportLosses(Capability):
    """Moves a card to lost or temporarily lost."""

    def decide(self, operation: LossOperation, batch: Batch) -> Outcome:
        state = locked_state(batch, operation.facts.card_id)
        status = rules.status_after_loss(state.status, operation.loss_kind)
        if status is None:
            raise StateConflictError("CARD_STATE_CONFLICT", "the card's status admits no such loss report")
        state.status, state.changed = status, True
        return Outcome(message=cards_pb2.ReportLossResponse(status=status.value), reason=DONE)  # type: ignore[arg-type]

    def replay(self, operation: LossOperation, response: bytes) -> cards_pb2.ReportLossResponse:
        return cards_pb2.ReportLossResponse.FromString(response)


class LiftLosses(Capability):
    """Brings a card that was reported lost back into use."""

    def decide(self, operation: CardOperation, batch: Batch) -> Outcome:
        state = locked_state(batch, operation.facts.card_id)
        status = rules.status_after_lift(state.status)
        if status is None:
            raise StateConflictError("CARD_STATE_CONFLICT", "the card is not reported lost")
        state.status, state.changed = status, True
        return Outcome(message=cards_pb2.LiftLossResponse(status=status), reason=DONE)  # type: ignore[arg-type]

    def replay(self, operation: CardOperation, response: bytes) -> cards_pb2.LiftLossResponse:
        return cards_pb2.LiftLossResponse.FromString(response)


class ReadStatuses(Capability):
    """Tells a card's status, under its lock, and leaves the access entry in the same transaction."""

    def decide(self, operation: CardOperation, batch: Batch) -> Outcome:
        state = locked_state(batch, operation.facts.card_id)
        expired = rules.is_expired(operation.facts.expires_on, batch.today)
        message = cards_pb2.GetCardStatusResponse(status=state.status, expired=expired)  # type: ignore[arg-type]
        return Outcome(message=message, reason=DONE)
