"""Operations that others follow: looked up under the card's lock, together with their holds and what was taken back.

All of them are working copies of one batch, so that two followers of one original see each other, and a follower sees
an original that was decided a moment before it in the same batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import IntEnum
from typing import Any

import asyncpg

from server.authorization.operations import MoneyOperation, OriginalKey
from server.authorization.rules import Reason
from server.authorization.usage import Usage
from server.database.statements import load
from server.engine.operation import (
    Account,
    Batch,
    CardState,
    OperationKind,
    Outcome,
    Posting,
    Tombstone,
)
from server.engine.request_log import tombstone_switch_key
from server.rulebook.rules import Channel

STATEMENTS = load("server.authorization")
A_DAY = timedelta(days=1)
# How long after its original a reversal without a business date may come and still mean one of the date before.
LATE_REVERSAL_MAX = timedelta(hours=1)


class HoldState(IntEnum):
    """State of a hold, as stored and as on the wire (``onecard.v1.HoldState``)."""

    PENDING = 1
    CAPTURED = 2
    VOIDED = 3
    REVERSED = 4
    EXPIRED = 5


@dataclass(slots=True)
class Hold:
    """Working copy of a ``holds`` row, under the lock of its card."""

    shard: int
    hold_id: int
    card_id: int
    account_id: int
    state: HoldState
    authorized_minor: int
    held_minor: int
    captured_minor: int
    expires_at: datetime
    changed: bool = False

    @property
    def is_released(self) -> bool:
        """Whether nothing of it was or can be captured."""
        return not (self.held_minor or self.captured_minor)

    def settle_state(self, when_empty: HoldState) -> None:
        """One that holds nothing is no longer pending; one that money went out of was captured, whatever came last."""
        if self.held_minor:
            self.state = HoldState.PENDING
        else:
            self.state = HoldState.CAPTURED if self.captured_minor else when_empty
        self.changed = True


@dataclass(slots=True)
class Original:
    """An operation as it was decided, and what was taken back of it since.

    ``suspense_minor`` of ``approved_minor`` came from the caller's suspense account; ``credit_account_id`` is where the
    first posting went.
    """

    operation_id: int
    request_id: str
    kind: OperationKind
    response_code: str | None
    approved_minor: int
    account_id: int | None
    card_id: int | None
    participant_id: str
    switch_key: bytes | None
    business_date: date
    original_operation_id: int | None
    channel: Channel | None
    # None for one of this batch.
    decided_at: datetime | None = None
    suspense_minor: int = 0
    credit_account_id: int | None = None
    reversed_minor: int = 0
    refunded_minor: int = 0
    shard: int = 0
    changed: bool = False

    @property
    def was_approved(self) -> bool:
        return self.response_code in {"00", "10"}

    def is_of(self, operation: MoneyOperation) -> bool:
        """Whether the follower is of the same caller and card."""
        return (
            self.participant_id == operation.participant_id
            and self.card_id is not None
            and self.card_id == operation.card_id
            and self.kind is not OperationKind.TOMBSTONE
        )

    def use_again(self, card: CardState, amount_minor: int, batch: Batch) -> None:
        """Counts again what the void of this operation gave back of its channel's limits, when that is undone."""
        if self.channel is None:
            return
        usage = Usage(card.usage, batch.business_date)
        is_whole = self.left_minor == self.approved_minor
        usage.take_again(self.channel, amount_minor, used_on=self.business_date, is_whole=is_whole)
        card.usage, card.changed = usage.pack(), True

    def give_back_usage(self, card: CardState, amount_minor: int, batch: Batch, *, is_whole: bool) -> None:
        """Lets the card use again what this operation used of its channel's limits; ``is_whole``: its count too."""
        if self.channel is None:
            return
        usage = Usage(card.usage, batch.business_date)
        usage.give_back(self.channel, amount_minor, used_on=self.business_date, is_whole=is_whole)
        card.usage, card.changed = usage.pack(), True

    @property
    def was_partial(self) -> bool:
        return self.response_code == "10"

    @property
    def suspense_left_minor(self) -> int:
        """What the suspense account paid of it and did not get back: it is given back first."""
        return max(0, self.suspense_minor - self.reversed_minor - self.refunded_minor)

    @property
    def left_minor(self) -> int:
        """What was neither reversed nor refunded."""
        return self.approved_minor - self.reversed_minor - self.refunded_minor


@dataclass(slots=True)
class Effect:
    """What a follow-up came to; amounts in 分."""

    reason: Reason
    approved_minor: int = 0
    postings: tuple[Posting, ...] = ()
    held_minor: int = 0
    tombstone: Tombstone | None = None


class Originals:
    """The originals of one batch, their parents, and their holds.

    ``are_followed`` tells whether any operation of the batch follows another.
    """

    def __init__(self, *, are_followed: bool) -> None:
        self.are_followed = are_followed
        self._by_id: dict[int, Original] = {}
        self._by_request: dict[str, Original] = {}
        self._by_switch_key: dict[tuple[bytes, date], Original] = {}
        self.holds: dict[int, Hold] = {}

    def add(self, original: Original) -> None:
        self._by_id[original.operation_id] = original
        self._by_request[original.request_id] = original
        # A duplicate has none: the key is the first one's.
        if original.switch_key is not None:
            self._by_switch_key[original.switch_key, original.business_date] = original

    def get(self, operation_id: int | None) -> Original | None:
        return None if operation_id is None else self._by_id.get(operation_id)

    def adjusted(self) -> list[Original]:
        """Those of which something was taken back, or given back again, by this batch."""
        return [original for original in self._by_id.values() if original.changed]

    def find(self, key: OriginalKey, operation: MoneyOperation, batch: Batch) -> Original | None:
        """What a reference names.

        A reversal that names no business date may come just after a cut-off: its caller cannot know the date of an
        original whose answer was lost. What was approved of the date before a moment ago is then meant.
        """
        if key.request_id is not None:
            return self._by_request.get(key.request_id)
        if key.operation_id is not None:
            return self._by_id.get(key.operation_id)
        assert key.switch_key is not None, "the servicer asks for one of the three"
        found = self._by_switch_key.get((key.switch_key, key.business_date or batch.business_date))
        if found is not None or key.business_date is not None or operation.kind is not OperationKind.REVERSAL:
            return found
        late = self._by_switch_key.get((key.switch_key, batch.business_date - A_DAY))
        if late is None or not late.was_approved or not late.is_of(operation) or late.decided_at is None:
            return None
        return late if batch.now - late.decided_at <= LATE_REVERSAL_MAX else None

    def has_switch_key(self, key: OriginalKey, *, business_date: date) -> bool:
        """Whether an operation of that date has the switch key of a reversal's reference."""
        return key.switch_key is not None and (key.switch_key, business_date) in self._by_switch_key

    def note(self, operation: MoneyOperation, outcome: Outcome, batch: Batch) -> None:
        """Takes an operation of this batch, for those that follow it in the same batch."""
        money = operation.money
        assert money is not None, "every money operation has an amount"
        original = Original(
            operation_id=batch.operation_id,
            request_id=operation.request_id or "",
            kind=operation.kind,
            response_code=outcome.response_code,
            approved_minor=outcome.approved_minor or 0,
            account_id=operation.account_id,
            card_id=operation.card_id,
            participant_id=operation.participant_id,
            switch_key=money.switch_key if batch.switch_key_holder is None else None,
            business_date=batch.business_date,
            original_operation_id=outcome.original_operation_id,
            channel=operation.channel,
            suspense_minor=sum(
                posting.amount_minor
                for posting in outcome.postings
                if posting.debit_account_id == operation.suspense_account_id
            ),
            credit_account_id=outcome.postings[0].credit_account_id if outcome.postings else None,
            shard=operation.shard,
        )
        self.add(original)
        tombstone = outcome.tombstone
        if tombstone is not None and tombstone.request_id not in self._by_request:
            self.add(
                Original(
                    operation_id=batch.operation_id + 1,
                    request_id=tombstone.request_id,
                    kind=OperationKind.TOMBSTONE,
                    response_code=tombstone.response_code,
                    approved_minor=0,
                    account_id=None,
                    card_id=operation.card_id,
                    participant_id=operation.participant_id,
                    switch_key=tombstone_switch_key(tombstone, operation),
                    business_date=batch.business_date,
                    original_operation_id=None,
                    channel=None,
                    shard=operation.shard,
                )
            )


async def read_originals(
    connection: "asyncpg.Connection[Any]", operations: Sequence[MoneyOperation], batch: Batch
) -> Originals:
    """What the operations of a batch follow, whose wallets it adds to the batch; no statement when none follows any.

    Must run after the card locks were taken.
    """
    followers = [operation for operation in operations if operation.original is not None]
    originals = Originals(are_followed=bool(followers))
    for shard in sorted({operation.shard for operation in followers}):
        own = [operation for operation in followers if operation.shard == shard]
        rows = await connection.fetch(STATEMENTS["find_originals"], shard, *_keys(own, batch))
        found = [_original(row, shard) for row in rows]
        parents = {o.original_operation_id for o in found if o.original_operation_id is not None}
        if parents:
            rows = await connection.fetch(STATEMENTS["find_originals"], shard, [], list(parents), [], [])
            found += [_original(row, shard) for row in rows]
        await _add_with_state(connection, originals, found, shard)
        wallets = {original.account_id for original in found if original.account_id is not None}
        for row in (
            await connection.fetch(STATEMENTS["find_accounts"], shard, list(wallets)) if wallets else ()
        ):
            batch.accounts[row[0]] = Account(shard, *row)
    await _add_from_other_shards(connection, originals, followers, batch)
    return originals


async def write_changes(connection: "asyncpg.Connection[Any]", originals: Originals) -> None:
    """Writes the holds that are new or changed, and what was taken back, shard by shard."""
    holds = [hold for hold in originals.holds.values() if hold.changed]
    for shard in sorted({hold.shard for hold in holds}):
        rows = [
            (
                *(h.hold_id, h.card_id, h.account_id, h.state),
                *(h.authorized_minor, h.held_minor, h.captured_minor, h.expires_at),
            )
            for h in holds
            if h.shard == shard
        ]
        await connection.execute(STATEMENTS["put_holds"], shard, *zip(*rows, strict=True))
    adjusted = originals.adjusted()
    for shard in sorted({original.shard for original in adjusted}):
        amounts = [
            (o.operation_id, o.approved_minor, o.reversed_minor, o.refunded_minor)
            for o in adjusted
            if o.shard == shard
        ]
        await connection.execute(STATEMENTS["put_adjustments"], shard, *zip(*amounts, strict=True))


def _keys(followers: Iterable[MoneyOperation], batch: Batch) -> tuple[list[Any], ...]:
    request_ids: list[Any] = []
    operation_ids: list[Any] = []
    switch_keys: list[Any] = []
    business_dates: list[Any] = []
    for operation in followers:
        key = operation.original
        assert key is not None, "a follower names its original"
        if key.request_id is not None:
            request_ids.append(key.request_id)
        elif key.operation_id is not None:
            operation_ids.append(key.operation_id)
        # Of a reversal also beside an id: it may have to keep the place.
        names_place = operation.kind is OperationKind.REVERSAL or not (key.request_id or key.operation_id)
        if key.switch_key is not None and names_place:
            switch_keys.append(key.switch_key)
            business_dates.append(key.business_date or batch.business_date)
            if operation.kind is OperationKind.REVERSAL and key.business_date is None:
                switch_keys.append(key.switch_key)
                business_dates.append(batch.business_date - A_DAY)
    return request_ids, operation_ids, switch_keys, business_dates


async def _add_from_other_shards(
    connection: "asyncpg.Connection[Any]",
    originals: Originals,
    followers: Sequence[MoneyOperation],
    batch: Batch,
) -> None:
    """What reversals name in other shards, and so on other cards: it has come, and no place is to be kept for it."""
    for shard in range(batch.shard_count) if batch.shard_count > 1 else ():
        elsewhere = [o for o in followers if o.kind is OperationKind.REVERSAL and o.shard != shard]
        if elsewhere:
            for row in await connection.fetch(STATEMENTS["find_originals"], shard, *_keys(elsewhere, batch)):
                original = _original(row, shard)
                if originals.get(original.operation_id) is None:
                    originals.add(original)


def _original(row: Any, shard: int) -> Original:
    operation_id, request_id, kind, code, approved, account_id, card_id, participant_id, *more = row
    key, business_date, parent_id, channel, decided_at, suspense_minor, credit_account_id = more
    return Original(
        *(operation_id, request_id, OperationKind(kind), code, approved, account_id, card_id),
        *(participant_id, key, business_date, parent_id),
        None if channel is None else Channel(channel),
        decided_at,
        suspense_minor,
        credit_account_id,
        shard=shard,
    )


async def _add_with_state(
    connection: "asyncpg.Connection[Any]", originals: Originals, found: Sequence[Original], shard: int
) -> None:
    if not found:
        return
    ids = list({original.operation_id for original in found})
    adjustments = {row[0]: row for row in await connection.fetch(STATEMENTS["find_adjustments"], shard, ids)}
    for original in found:
        if (row := adjustments.get(original.operation_id)) is not None:
            _, original.reversed_minor, original.refunded_minor = row
        if originals.get(original.operation_id) is None:
            originals.add(original)
    for row in await connection.fetch(STATEMENTS["find_holds"], shard, ids):
        hold = Hold(shard, *row)
        hold.state = HoldState(hold.state)
        originals.holds[hold.hold_id] = hold
