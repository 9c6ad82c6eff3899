"""The transactions of one lane: lock the cards, read, decide in memory in order of arrival, write, commit.

One transaction locks rows of one shard, or of two where an operation moves money between them. Must never answer
anyone: what was decided is told only after ``run`` has returned.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import repeat
from typing import Any, Protocol, TypeAlias

import asyncpg

from server.database.pool import HotPathConnection
from server.database.statements import load
from server.engine.business_calendar import BusinessCalendar
from server.engine.database_troubles import CONNECTION_LOST, PerhapsAnsweredError
from server.engine.decisions import Results, decide, decided_by_capability, lacks_outcome
from server.engine.operation import (
    Account,
    Batch,
    CardState,
    Operation,
    OperationKind,
    StoredAnswer,
)
from server.engine.operation_ids import OperationIds
from server.engine.preparation import by_capability
from server.engine.request_log import (
    SwitchKey,
    claim_numbers,
    find_answers,
    look_back_date,
    switch_key_of,
)
from server.engine.writer import BatchWriter

LOCK_CARDS = load("server.engine")["lock_cards"]
LOCK_FREE_CARDS = load("server.engine")["lock_free_cards"]
READ_BATCH = load("server.engine")["read_batch"]
CLAIM_KEYS = load("server.engine")["claim_keys"]
CLOSED_THROUGH = load("server.engine")["closed_through"]

# How often a batch may go on without an operation whose card is held; then its batch waits for the card.
PASSED_OVER_MAX = 3
# After a request or switch key came twice, more of them are expected: they are then looked for before they are decided.
CAREFUL_S = 1.0

Connection: TypeAlias = "asyncpg.Connection[Any]"
# The operations that a transaction decided, and their results.
Decided: TypeAlias = tuple[Sequence[Operation], Results]


class RulesInForce(Protocol):
    """The rules that decisions follow: every batch is decided by those in force when it has its locks."""

    version: int

    async def refresh(self, connection: Connection) -> None:
        """Takes what changed since ``version``."""


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """What a lane needs from outside.

    ``find_cards`` gives the facts of the cards that blind indexes name, to be bound to operations.
    ``shard_count`` is that of the database, ``rules`` what decisions follow.
    ``keys_may_block`` tells that asking the key store may wait for something outside the process.
    ``observe`` gets each batch with its results and its duration in seconds, after its callers were answered.
    """

    open_connection: Callable[[], HotPathConnection]
    find_cards: Callable[[Connection, set[bytes]], Awaitable[Mapping[bytes, Any]]]
    calendar: BusinessCalendar
    request_log_hours: int
    shard_count: int
    rules: RulesInForce
    keys_may_block: bool
    observe: Callable[[Sequence[Operation], Results, float], None]


class LaneTransactions:
    """Runs one transaction after another on a lane's connection."""

    def __init__(self, settings: LaneSettings) -> None:
        self._settings = settings
        # Whether another batch follows at once, so that its transaction may begin with the commit.
        self.has_more: Callable[[], bool] = bool
        self._connection = settings.open_connection()
        # The connection on which a transaction is open: a new connection has none, whatever the old one had.
        self._transaction_on: Connection | None = None
        self._operation_ids = OperationIds()
        # Until then (seconds of the loop's clock) nothing is left to the unique indexes.
        self._careful_until = 0.0
        # The newest closed business date; None until it is looked for.
        self._closed_through: date | None = None

    @property
    def is_open(self) -> bool:
        return self._transaction_on is not None

    async def connection(self) -> Connection:
        """The lane's connection, opened where there is none.

        Raises:
            DatabaseUnavailableError: the database does not answer.
        """
        return await self._connection.get()

    async def run(self, operations: Sequence[Operation]) -> Decided:
        """Runs one transaction; returns what it decided and the results in order, all of them durable.

        What it did not decide waits for a card that somebody else holds.

        Raises:
            asyncpg.UniqueViolationError, PerhapsAnsweredError: something came twice, or may have; run again, now with
                care.
        """
        try:
            return await self._run(operations)
        except (asyncpg.UniqueViolationError, PerhapsAnsweredError):
            self._careful_until = asyncio.get_running_loop().time() + CAREFUL_S
            raise
        except asyncpg.SerializationError:
            # Perhaps its business date was closed meanwhile.
            self._closed_through = None
            raise

    async def _run(self, operations: Sequence[Operation]) -> Decided:
        connection = await self._connection.get()
        shards = operations[0].shards
        if self._transaction_on is not connection:
            await connection.execute("BEGIN")
            self._transaction_on = connection
        operations, batch = await self._lock_free(connection, operations, shards)
        # Answers last: a twin without a card to lock may commit in between, and then its answer must be seen, not only
        # what it changed.
        for capability, own in by_capability(operations).items():
            batch.facts[capability] = await capability.read(connection, own, batch)
        answers, used_keys = await self._read(connection, operations, batch)
        # Twice: a reversal may leave a tombstone beside its own row.
        await self._operation_ids.reserve(connection, 2 * len(operations))
        writer = BatchWriter(shards)
        results, decided = decide(
            operations, batch, answers, used_keys, writer=writer, ids=self._operation_ids
        )
        if batch.is_hopeful and lacks_outcome(operations, results):
            raise PerhapsAnsweredError
        await writer.write(connection, batch)
        for capability, own_decided in decided_by_capability(decided).items():
            await capability.persist(connection, batch, own_decided)
        # When more waits, the next transaction begins in the same round trip.
        chain = self.has_more()
        status = await connection.execute("COMMIT AND CHAIN" if chain else "COMMIT")
        assert status == "COMMIT", "PostgreSQL answers the commit of a failed transaction with ROLLBACK"
        self._transaction_on = connection if chain else None
        return operations, results

    async def _lock_free(
        self, connection: Connection, operations: Sequence[Operation], shards: tuple[int, ...]
    ) -> tuple[Sequence[Operation], Batch]:
        """Locks the cards that are free, and gives the operations on them; waits when there is nothing else to do.

        One card that another batch holds would hold up all others, and those of the next batch behind them. Where an
        operation has two cards the batch waits: it would hold one card while it waits for the other, out of order.
        """
        if not any(o.urgent or o.passed_over >= PASSED_OVER_MAX or o.other is not None for o in operations):
            batch = await self._lock(connection, LOCK_FREE_CARDS, operations, shards)
            free = [o for o in operations if o.card_id is None or o.card_id in batch.cards]
            if free:
                return free, batch
        return operations, await self._lock(connection, LOCK_CARDS, operations, shards)

    async def _lock(
        self,
        connection: Connection,
        statement: str,
        operations: Sequence[Operation],
        shards: tuple[int, ...],
    ) -> Batch:
        """Locks the cards, in ascending shard and card id; the batch has no accounts yet."""
        card_ids = _by_shard((o.shard, o.card_id) for o in operations)
        for shard, ids in _by_shard((o.other.shard, o.other.card_id) for o in operations if o.other).items():
            card_ids[shard] |= ids
        if self._settings.shard_count > 1:
            # The same key may come with cards of two shards at once, whose locks know nothing of each other.
            await connection.execute(CLAIM_KEYS, claim_numbers(operations))
        cards: dict[int, CardState] = {}
        for shard in shards:
            rows = await connection.fetch(statement, card_ids[shard], shard)
            for row in rows:
                if row[1] is not None:
                    cards[row[1]] = CardState(shard, *row[1:])
        now = datetime.fromtimestamp(rows[-1][0], UTC)
        if self._closed_through is None:
            self._closed_through = await connection.fetchval(CLOSED_THROUGH)
        # A date that was closed before its cut-off takes no more operations: they belong to the next.
        business_date = max(
            self._settings.calendar.business_date_of(now), self._closed_through + timedelta(days=1)
        )
        return Batch(
            cards=cards,
            accounts={},
            now=now,
            today=self._settings.calendar.date_of(now),
            business_date=business_date,
            business_date_text=f"{business_date:%Y%m%d}",
            shard_count=self._settings.shard_count,
            is_hopeful=asyncio.get_running_loop().time() >= self._careful_until,
        )

    async def _read(
        self, connection: Connection, operations: Sequence[Operation], batch: Batch
    ) -> tuple[dict[str, StoredAnswer], dict[SwitchKey, OperationKind]]:
        """Reads accounts into the batch; gives stored answers, and who holds the switch keys that are in use.

        Answers and keys are asked for in every shard: the same id may have come with a card of another one. For money
        operations, those of this business date and shard are not, in the hope that nothing comes twice: unique indexes
        find what does, and the batch runs again with care.
        """
        since = look_back_date(batch.business_date, hours=self._settings.request_log_hours)
        keys = [key for operation in operations if (key := switch_key_of(operation)) is not None]
        request_ids = {o.request_id for o in operations if o.request_id is not None}
        moneyless_ids = {o.request_id for o in operations if o.request_id is not None and o.money is None}
        account_ids = _by_shard((o.shard, o.account_id) for o in operations)
        for shard, ids in _by_shard(
            (o.other.shard, o.other.account_id) for o in operations if o.other
        ).items():
            account_ids[shard] |= ids
        batch_shards = operations[0].shards
        answers: dict[str, StoredAnswer] = {}
        used_keys: dict[SwitchKey, OperationKind] = {}
        for shard in range(self._settings.shard_count):
            row = await connection.fetchrow(
                READ_BATCH,
                shard,
                account_ids[shard],
                request_ids,
                since,
                batch.business_date,
                # A batch of two shards writes into one of them what may stand in the other.
                *(
                    (moneyless_ids, ())
                    if batch.is_hopeful and (shard,) == batch_shards
                    else (request_ids, keys)
                ),
            )
            assert row is not None, "the statement gives one row"
            ids, posted, held, places, known_ids, used, rules_version = row
            if ids is not None:
                copies = map(Account, repeat(shard), ids, posted, held, places)
                batch.accounts |= zip(ids, copies, strict=False)
            if known_ids:
                answers |= await find_answers(connection, known_ids, shard=shard, since=since)
            used_keys |= {key: OperationKind(kind) for key, kind in used}
        if rules_version != self._settings.rules.version:
            await self._settings.rules.refresh(connection)
        return answers, used_keys

    async def roll_back(self) -> None:
        connection, self._transaction_on = self._transaction_on, None
        if connection is None:
            return
        try:
            await connection.execute("ROLLBACK")
        except (asyncpg.PostgresError, *CONNECTION_LOST):
            await self._connection.discard()

    async def discard(self) -> None:
        self._transaction_on = None
        await self._connection.discard()

    async def close(self) -> None:
        await self._connection.close()


def _by_shard(places: Iterable[tuple[int, int | None]]) -> dict[int, set[int]]:
    """Ids by shard."""
    ids: dict[int, set[int]] = defaultdict(set)
    for shard, number in places:
        if number is not None:
            ids[shard].add(number)
    return ids
