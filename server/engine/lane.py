"""A lane: one database connection, and the batches that run over it one after another.

Lock the cards in ascending order, read the stored answers, decide in memory in order of arrival, write with array
statements, commit, and only then answer. A batch that fails as a whole is retried in halves until the one bad operation
stands alone. Every loop is bounded, and every operation that enters is settled once.
"""

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg

from server.database.pool import HotPathConnection
from server.database.statements import load
from server.engine.business_calendar import BusinessCalendar
from server.engine.database_troubles import CONNECTION_LOST, HELD_UP, LOST_RACE, OUT_OF_RESOURCES
from server.engine.operation import (
    Account,
    Batch,
    Capability,
    CardState,
    Operation,
    Outcome,
    StoredAnswer,
    reject,
)
from server.engine.preparation import as_operating_error, by_capability, prepare
from server.engine.request_log import (
    SwitchKey,
    as_stored,
    differing_field,
    find_answers,
    look_back_date,
    switch_key,
)
from server.engine.writer import BatchWriter
from server.errors import (
    ContendedError,
    DatabaseUnavailableError,
    DeadlineError,
    OneCardError,
    RequestIdReusedError,
)

log = logging.getLogger(__name__)

LOCK_CARDS = load("server.engine")["lock_cards"]
LOCK_FREE_CARDS = load("server.engine")["lock_free_cards"]
READ_BATCH = load("server.engine")["read_batch"]
NEXT_OPERATION_IDS = load("server.engine")["next_operation_ids"]

OPERATION_IDS_PER_BLOCK = 10_000
ATTEMPTS_MAX = 5
RETRY_DELAY_MAX_S = 0.02
# How often a batch may go on without an operation whose card is held; then its batch waits for the card.
PASSED_OVER_MAX = 3
# Batches that look their switch keys up after one that lost a race. The unique index finds duplicates too, and they are
# rare: looking each key up costs more than running one batch in many again.
CAREFUL_BATCHES = 16
SWITCH_KEY_PARTS = 4

Connection: TypeAlias = "asyncpg.Connection[Any]"
Results: TypeAlias = list[Any]


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """What a lane needs from outside.

    ``find_cards`` gives the facts of the cards that blind indexes name, to be bound to operations.
    ``keys_may_block`` tells that asking the key store may wait for something outside the process.
    ``observe`` gets each batch with its results and its duration in seconds, after its callers were answered.
    """

    open_connection: Callable[[], HotPathConnection]
    find_cards: Callable[[Connection, set[bytes]], Awaitable[Mapping[bytes, Any]]]
    calendar: BusinessCalendar
    request_log_hours: int
    keys_may_block: bool
    observe: Callable[[Sequence[Operation], Results, float], None]


class Lane:
    """Runs batches one after another until there are no more."""

    def __init__(
        self,
        settings: LaneSettings,
        on_trouble: Callable[[], None],
        prepare_aside: Callable[[Sequence[Operation]], None],
        put_back: Callable[[Sequence[Operation]], None],
    ) -> None:
        """
        Args:
            on_trouble: called when a batch is held up, and others should not wait for this lane.
            prepare_aside: has operations prepared while no lane waits, and queues them again.
            put_back: queues operations again, in front of all others.
        """
        self._settings = settings
        self._on_trouble = on_trouble
        self._prepare_aside = prepare_aside
        self._put_back = put_back
        # Operations of the present batch whose cards somebody else held.
        self._passed_over: list[Operation] = []
        self._careful_batches = 0
        self.in_trouble = False
        self._connection = settings.open_connection()
        # The connection on which a transaction is open: a new connection has none, whatever the old one had.
        self._transaction_on: Connection | None = None
        self._has_more: Callable[[], bool] = bool
        self._operation_id_next = 0
        self._operation_id_end = 0

    async def run(
        self, take: Callable[[], Awaitable[list[Operation] | None]], has_more: Callable[[], bool]
    ) -> None:
        """Processes what ``take`` gives until it gives None, then closes the connection.

        ``has_more`` tells whether ``take`` would give something at once.
        """
        self._has_more = has_more
        while True:
            # A chained transaction waits for work only as long as there is some. No await between the question
            # and what ``take`` gives first.
            if self._transaction_on is not None and not has_more():
                await self._roll_back()
            operations = await take()
            if operations is None:
                break
            started = time.perf_counter()
            self.in_trouble = False
            try:
                await self._admit(operations)
            except Exception as error:
                # Only an error of the engine itself comes here, and even then no caller waits for ever.
                self._passed_over.clear()
                unsettled = [o for o in operations if o.ticket.results[o.index] is None]
                reject(unsettled, as_operating_error(error))
                await self._discard()
            # What is being prepared aside or was passed over has no result yet and comes again.
            settled = [o for o in operations if o.ticket.results[o.index] is not None]
            results = [operation.ticket.results[operation.index] for operation in settled]
            try:
                self._settings.observe(settled, results, time.perf_counter() - started)
            except Exception as error:
                # A lane that ends here would leave every later caller waiting.
                log.error("batch was not observed", exc_info=error)
            if self._passed_over:
                self._put_back(self._passed_over)
                self._passed_over = []
        await self._connection.close()

    async def _admit(self, operations: Sequence[Operation]) -> None:
        """Binds operations to the cards they name, and processes them shard by shard."""
        cards = await self._find_cards(operations)
        if cards is None:
            reject(operations, DatabaseUnavailableError())
            return
        shards: dict[int, list[Operation]] = defaultdict(list)
        for operation in operations:
            # What comes back prepared was bound before, and holds what the key store said of it.
            if operation.card_index is not None and not operation.prepared:
                try:
                    operation.bind(cards.get(operation.card_index))
                except OneCardError as error:
                    operation.settle(error)
                    continue
            shards[operation.shard].append(operation)
        for shard in sorted(shards):
            await self._process(shards[shard])

    async def _find_cards(self, operations: Sequence[Operation]) -> Mapping[bytes, Any] | None:
        """What the operations' indexes name; None when the database does not answer, on a new connection either."""
        indexes = {o.card_index for o in operations if o.card_index is not None and not o.prepared}
        if not indexes:
            return {}
        for _ in range(2):
            try:
                return await self._settings.find_cards(await self._connection.get(), indexes)
            except (*CONNECTION_LOST, *OUT_OF_RESOURCES) as error:
                log.warning("database connection lost: %s", type(error).__name__)
                await self._discard()
        return None

    async def _process(self, operations: Sequence[Operation]) -> None:
        if self._settings.keys_may_block:
            asking = [o for o in operations if o.asks_keys and not o.prepared]
            if asking:
                self._prepare_aside(asking)
                operations = [o for o in operations if not o.asks_keys or o.prepared]
                if not operations:
                    return
        try:
            await prepare(operations)
        except Exception as error:
            await self._halve(operations, error)
        else:
            await self._commit(operations)

    async def _halve(self, operations: Sequence[Operation], error: Exception) -> None:
        """Tries each half by itself; the operation that stands alone with the error gets it."""
        if len(operations) > 1:
            middle = len(operations) // 2
            await self._process(operations[:middle])
            await self._process(operations[middle:])
            return
        reject(operations, as_operating_error(error))

    async def _commit(self, operations: Sequence[Operation]) -> None:
        connections_lost = 0
        for _ in range(ATTEMPTS_MAX):
            try:
                decided, results = await self._transact(operations)
            except LOST_RACE:
                self._careful_batches = CAREFUL_BATCHES
                await self._roll_back()
                await asyncio.sleep(random.uniform(0, RETRY_DELAY_MAX_S))
            except HELD_UP:
                self._call_for_help()
                await self._roll_back()
                await self._halve(operations, ContendedError())
                return
            except CONNECTION_LOST as error:
                # The next attempt reads the stored answers on a new connection: what was committed is replayed.
                log.warning("database connection lost: %s", type(error).__name__)
                self._call_for_help()
                await self._discard()
                connections_lost += 1
                if connections_lost > 1:
                    reject(operations, DatabaseUnavailableError())
                    return
            except OUT_OF_RESOURCES as error:
                log.error("database out of resources: %s", type(error).__name__)
                await self._roll_back()
                reject(operations, DatabaseUnavailableError())
                return
            except Exception as error:
                await self._roll_back()
                await self._halve(operations, error)
                return
            else:
                self._careful_batches = max(0, self._careful_batches - 1)
                for operation, result in zip(decided, results, strict=True):
                    operation.settle(result)
                if len(decided) < len(operations):
                    self._pass_over([o for o in operations if o.ticket.results[o.index] is None])
                return
        await self._halve(operations, ContendedError())

    async def _transact(self, operations: Sequence[Operation]) -> tuple[Sequence[Operation], Results]:
        """Runs one transaction; returns what it decided and the results in order, all of them durable.

        What it did not decide waits for a card that somebody else holds.
        """
        connection = await self._connection.get()
        shard = operations[0].shard
        if self._transaction_on is not connection:
            await connection.execute("BEGIN")
            self._transaction_on = connection
        operations, batch = await self._lock_free(connection, operations, shard)
        # Answers last: a twin without a card to lock may commit in between, and then its answer must be seen, not only
        # what it changed.
        for capability, own in by_capability(operations).items():
            batch.facts[capability] = await capability.read(connection, own, batch)
        answers, used_keys = await self._read(connection, operations, batch, shard)
        await self._reserve_operation_ids(connection, len(operations))
        writer = BatchWriter()
        results, outcomes = self._decide(operations, batch, answers, used_keys, writer)
        await writer.write(connection, batch, shard=shard)
        for capability, own_decided in _by_capability_decided(outcomes).items():
            await capability.persist(connection, batch, own_decided)
        # When more waits, the next transaction begins in the same round trip.
        chain = self._has_more()
        status = await connection.execute("COMMIT AND CHAIN" if chain else "COMMIT")
        assert status == "COMMIT", "PostgreSQL answers the commit of a failed transaction with ROLLBACK"
        self._transaction_on = connection if chain else None
        return operations, results

    async def _lock_free(
        self, connection: Connection, operations: Sequence[Operation], shard: int
    ) -> tuple[Sequence[Operation], Batch]:
        """Locks the cards that are free, and gives the operations on them; waits when there is nothing else to do.

        One card that another batch holds would hold up all others, and those of the next batch behind them.
        """
        if not any(o.urgent or o.passed_over >= PASSED_OVER_MAX for o in operations):
            batch = await self._lock(connection, LOCK_FREE_CARDS, operations, shard)
            free = [o for o in operations if o.card_id is None or o.card_id in batch.cards]
            if free:
                return free, batch
        return operations, await self._lock(connection, LOCK_CARDS, operations, shard)

    async def _lock(
        self, connection: Connection, statement: str, operations: Sequence[Operation], shard: int
    ) -> Batch:
        """Locks the cards; the batch has no accounts yet."""
        card_ids = {o.card_id for o in operations if o.card_id is not None}
        rows = await connection.fetch(statement, card_ids, shard)
        now = datetime.fromtimestamp(rows[-1][0], UTC)
        business_date = self._settings.calendar.business_date_of(now)
        return Batch(
            cards={row[1]: CardState(*row[1:]) for row in rows if row[1] is not None},
            accounts={},
            now=now,
            today=self._settings.calendar.date_of(now),
            business_date=business_date,
            business_date_text=f"{business_date:%Y%m%d}",
        )

    async def _read(
        self, connection: Connection, operations: Sequence[Operation], batch: Batch, shard: int
    ) -> tuple[dict[str, StoredAnswer], set[SwitchKey]]:
        """Reads accounts into the batch; gives stored answers and the switch keys that are in use.

        Without a reason to look switch keys up, none is given: a batch that uses one again loses the race for it.
        """
        since = look_back_date(batch.business_date, hours=self._settings.request_log_hours)
        keys = [k for o in operations if (k := switch_key(o)) is not None] if self._careful_batches else []
        row = await connection.fetchrow(
            READ_BATCH,
            shard,
            {o.account_id for o in operations if o.account_id is not None},
            {o.request_id for o in operations if o.request_id is not None},
            since,
            batch.business_date,
            *(zip(*keys, strict=True) if keys else [()] * SWITCH_KEY_PARTS),
        )
        assert row is not None, "the statement gives one row"
        ids, posted, held, places, known_ids, used = row
        if ids is not None:
            batch.accounts = dict(zip(ids, map(Account, ids, posted, held, places), strict=True))
        answers = await find_answers(connection, known_ids, shard=shard, since=since) if known_ids else {}
        return answers, {keys[position - 1] for position in used}

    def _decide(
        self,
        operations: Sequence[Operation],
        batch: Batch,
        answers: dict[str, StoredAnswer],
        used_keys: set[SwitchKey],
        writer: BatchWriter,
    ) -> tuple[Results, list[tuple[Operation, Outcome]]]:
        """Decides each operation in order of arrival. No await: the working copies change in one piece."""
        results: Results = []
        decided: list[tuple[Operation, Outcome]] = []
        first_of: dict[str, tuple[Operation, Outcome]] = {}
        clock = asyncio.get_running_loop().time()
        for operation in operations:
            request_id = operation.request_id
            if request_id is not None:
                if request_id in answers:
                    results.append(_replay(operation, answers[request_id]))
                    continue
                if request_id in first_of:
                    results.append(_join(operation, *first_of[request_id]))
                    continue
            if operation.deadline < clock:
                results.append(DeadlineError())
                continue
            key = switch_key(operation)
            batch.switch_key_used = key is not None and key in used_keys
            batch.operation_id = self._operation_id_next
            try:
                outcome = operation.capability.decide(operation, batch)
            except OneCardError as error:
                results.append(error)
                continue
            self._operation_id_next += 1
            writer.add(operation, outcome, batch)
            if key is not None:
                used_keys.add(key)
            if request_id is not None:
                first_of[request_id] = operation, outcome
            decided.append((operation, outcome))
            results.append(outcome.message)
        return results, decided

    async def _reserve_operation_ids(self, connection: Connection, count: int) -> None:
        """Makes sure ``count`` consecutive ids are at hand; ids of a rolled-back batch are lost, never reused."""
        if self._operation_id_next + count > self._operation_id_end:
            self._operation_id_next = await connection.fetchval(NEXT_OPERATION_IDS)
            self._operation_id_end = self._operation_id_next + OPERATION_IDS_PER_BLOCK

    def _pass_over(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            operation.passed_over += 1
        self._passed_over += operations

    def _call_for_help(self) -> None:
        self.in_trouble = True
        self._on_trouble()

    async def _roll_back(self) -> None:
        connection, self._transaction_on = self._transaction_on, None
        if connection is None:
            return
        try:
            await connection.execute("ROLLBACK")
        except (asyncpg.PostgresError, *CONNECTION_LOST):
            await self._connection.discard()

    async def _discard(self) -> None:
        self._transaction_on = None
        await self._connection.discard()


def _replay(operation: Operation, stored: StoredAnswer) -> Any:
    field = differing_field(operation, stored)
    return RequestIdReusedError(field) if field else operation.capability.replay(operation, stored.response)


def _join(operation: Operation, first: Operation, outcome: Outcome) -> Any:
    """Answers a twin in the same batch with the first one's outcome."""
    field = differing_field(operation, as_stored(first))
    return RequestIdReusedError(field) if field else outcome.message


def _by_capability_decided(
    decided: Sequence[tuple[Operation, Outcome]],
) -> dict[Capability, list[tuple[Operation, Outcome]]]:
    groups: dict[Capability, list[tuple[Operation, Outcome]]] = defaultdict(list)
    for operation, outcome in decided:
        groups[operation.capability].append((operation, outcome))
    return groups
