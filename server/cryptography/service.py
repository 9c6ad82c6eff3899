"""PINs of cards, as the engine runs them: computed before the lock, compared and counted under it.

Before the lock the key store turns a presented PIN into what PINs are verified against; under the lock that is compared
with what the card's row says now. So no key works under a lock, parallel guesses are counted one by one, and a change
that committed a moment ago is in force.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from onecard.v1 import cryptography_pb2 as pb

from crypto.errors import CryptoError
from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import EncryptedPin, IssuedPin, PinIssue, PinReferences
from crypto.sealing import ColumnSealer
from server.cards.directory import CardFacts
from server.cards.pin_rules import PinVerdict, StoredPin, judge_pin, set_tries, tries_left
from server.cards.pins import Referenced, read_pins, readable, write_pins
from server.cards.presented import PresentedOperation
from server.cryptography import rules
from server.cryptography.rules import OF_VERDICT, RESPONSE_CODES, PinReason
from server.edge.key_errors import RefusedFields, operating_error
from server.engine.operation import Batch, Capability, CardState, OperationKind, Outcome
from server.errors import UnavailableError
from server.key_calls import KeyCalls, key_store_unavailable

RESPONSES: dict[OperationKind, type[Any]] = {
    OperationKind.VERIFY_PIN: pb.VerifyPinResponse,
    OperationKind.CHANGE_PIN: pb.ChangePinResponse,
    OperationKind.UNBLOCK_PIN: pb.UnblockPinResponse,
    OperationKind.ISSUE_PIN: pb.IssuePinResponse,
}


@dataclass(slots=True, kw_only=True)
class PinOperation(PresentedOperation):
    """An operation on a card's PIN; what it does not need is None. ``checked`` tells that the key store answered."""

    presented: EncryptedPin | None = None
    new: EncryptedPin | None = None
    issue: PinIssue | None = None
    presented_references: Referenced | None = None
    new_references: Referenced | None = None
    issued: IssuedPin | CryptoError | ValueError | None = None
    checked: bool = False

    @property
    def asks_keys(self) -> bool:
        return self.kind is not OperationKind.UNBLOCK_PIN and not self.checked

    def bind(self, card: CardFacts | None) -> None:
        """Takes a card of a region that is not the caller's like none: a refusal would tell that there is one."""
        if card is not None and self.caller.may_region(card.issuing_region):
            PresentedOperation.bind(self, card)


class CardPins(Capability):
    """Verifies, changes, unblocks and issues PINs: one capability, so that operations of one batch see each other."""

    def __init__(self, keys: KeyCalls, plane: DataPlane, sealer: ColumnSealer) -> None:
        self._keys = keys
        self._plane = plane
        self._sealer = sealer

    async def prepare(self, operations: Sequence[PinOperation]) -> None:
        for operation in operations:
            # An unblocking asks no key: it goes on without the key store, whatever it shares a batch with.
            operation.checked |= operation.kind is OperationKind.UNBLOCK_PIN
        asked = [operation for operation in operations if not operation.checked]
        if not asked:
            return
        try:
            await self._keys.ask(lambda: self._ask(asked), first=True)
        except UnavailableError:
            return
        for operation in asked:
            operation.checked = True

    def _ask(self, operations: Sequence[PinOperation]) -> None:
        """One call for all presented PINs, present and new, and one for all that are issued."""
        presented = [operation for operation in operations if operation.presented is not None]
        changing = [operation for operation in operations if operation.new is not None]
        pins = [o.presented for o in presented if o.presented] + [o.new for o in changing if o.new]
        references = iter(self._plane.pin_references(pins))
        for operation in presented:
            operation.presented_references = next(references)
        for operation in changing:
            operation.new_references = next(references)
        issuing = [operation for operation in operations if operation.issue is not None]
        issued = self._plane.issue_pins([o.issue for o in issuing if o.issue])
        for operation, pin in zip(issuing, issued, strict=True):
            operation.issued = pin

    async def read(
        self, connection: "asyncpg.Connection[Any]", operations: Sequence[PinOperation], batch: Batch
    ) -> None:
        card_ids = [operation.card_id for operation in operations if operation.card_id is not None]
        await read_pins(connection, card_ids, batch, sealer=self._sealer)

    def decide(self, operation: PinOperation, batch: Batch) -> Outcome:
        if not operation.checked:
            raise key_store_unavailable()
        facts = operation.facts
        card = batch.cards.get(facts.card_id) if facts is not None else None
        reason = rules.reason_of_card(
            card, expires_on=facts.expires_on if facts is not None else None, today=batch.today
        )
        if reason is not PinReason.ACCEPTED or card is None:
            return _outcome(operation, reason, card=None)
        if operation.kind is OperationKind.ISSUE_PIN:
            return self._issue(operation, card, batch.pins)
        if operation.kind is OperationKind.UNBLOCK_PIN:
            return self._unblock(operation, card, batch.pins)
        return self._present(operation, card, batch.pins)

    async def persist(
        self,
        connection: "asyncpg.Connection[Any]",
        batch: Batch,
        decided: Sequence[tuple[PinOperation, Outcome]],
    ) -> None:
        await write_pins(connection, batch, sealer=self._sealer)

    def replay(self, operation: PinOperation, response: bytes) -> Any:
        message = RESPONSES[operation.kind].FromString(response)
        if operation.kind is OperationKind.ISSUE_PIN and message.pin_block:
            message.pin_block = self._sealer.open(message.pin_block, **_stored_block(operation))
        return message

    def _present(self, operation: PinOperation, card: CardState, pins: dict[int, StoredPin]) -> Outcome:
        """Compares, counts and, for a change that is accepted, replaces."""
        is_change = operation.new is not None
        presented = readable(operation.presented_references, field="current_pin" if is_change else "pin")
        new = readable(operation.new_references, field="new_pin") if is_change else None
        # A new PIN that does not decode is told before the present one is compared.
        verdict = judge_pin(
            card, pins.get(card.card_id), presented if new is not None or not is_change else None
        )
        if verdict is PinVerdict.ACCEPTED and new is not None:
            _replace(pins, card, new)
        return _outcome(operation, OF_VERDICT[verdict], card)

    def _unblock(self, operation: PinOperation, card: CardState, pins: dict[int, StoredPin]) -> Outcome:
        stored = pins.get(card.card_id)
        reason = rules.reason_of_unblocking(card, unblocks=stored.unblocks if stored is not None else None)
        if reason is PinReason.ACCEPTED:
            if card.pin_tries and stored is not None:
                stored.unblocks, stored.changed = stored.unblocks + 1, True
            set_tries(card, 0)
        return _outcome(operation, reason, card)

    def _issue(self, operation: PinOperation, card: CardState, pins: dict[int, StoredPin]) -> Outcome:
        issued = operation.issued
        if not isinstance(issued, IssuedPin):
            assert issued is not None, "the key store answered"
            raise operating_error(issued, RefusedFields("key", value="format"))
        _replace(pins, card, issued.references)
        set_tries(card, 0)
        outcome = _outcome(operation, PinReason.ACCEPTED, card, pin_block=issued.block)
        # The block stays for ever with the stored answer: sealed, as the reference is.
        stored = pb.IssuePinResponse()
        stored.CopyFrom(outcome.message)
        stored.pin_block = self._sealer.seal(issued.block, **_stored_block(operation))
        outcome.stored = stored.SerializeToString()
        return outcome


def _stored_block(operation: PinOperation) -> dict[str, str]:
    """Where the encrypted block of an issued PIN is stored, as its seal says."""
    return {"column": "operations.response", "row_id": operation.request_id or ""}


def _replace(pins: dict[int, StoredPin], card: CardState, references: PinReferences) -> None:
    version = references.active_version
    pins[card.card_id] = StoredPin(version, references.by_version[version], changed=True)


def _outcome(operation: PinOperation, reason: PinReason, card: CardState | None, **more: Any) -> Outcome:
    if operation.kind in {OperationKind.VERIFY_PIN, OperationKind.CHANGE_PIN}:
        more["tries_left"] = tries_left(card)
    response_code = RESPONSE_CODES[reason]
    message = RESPONSES[operation.kind](response_code=response_code, reason=reason, **more)
    return Outcome(message, reason, response_code)
