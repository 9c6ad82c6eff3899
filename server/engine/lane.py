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
from typing import Any

from server.engine.database_troubles import CONNECTION_LOST, HELD_UP, LOST_RACE, OUT_OF_RESOURCES
from server.engine.operation import Operation, reject
from server.engine.preparation import as_operating_error, prepare
from server.engine.transaction import LaneSettings, LaneTransactions
from server.errors import ContendedError, DatabaseUnavailableError, OneCardError

log = logging.getLogger(__name__)

ATTEMPTS_MAX = 5
RETRY_DELAY_MAX_S = 0.02


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
        self.in_trouble = False
        self._transactions = LaneTransactions(settings)

    async def run(
        self, take: Callable[[], Awaitable[list[Operation] | None]], has_more: Callable[[], bool]
    ) -> None:
        """Processes what ``take`` gives until it gives None, then closes the connection.

        ``has_more`` tells whether ``take`` would give something at once.
        """
        self._transactions.has_more = has_more
        while True:
            # A chained transaction waits for work only as long as there is some. No await between the question
            # and what ``take`` gives first.
            if self._transactions.is_open and not has_more():
                await self._transactions.roll_back()
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
                await self._transactions.discard()
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
        await self._transactions.close()

    async def _admit(self, operations: Sequence[Operation]) -> None:
        """Binds operations to the cards they name, and processes them by the shards they lock rows of."""
        cards = await self._find_cards(operations)
        if cards is None:
            reject(operations, DatabaseUnavailableError())
            return
        shards: dict[tuple[int, ...], list[Operation]] = defaultdict(list)
        for operation in operations:
            # What comes back prepared was bound before, and holds what the key store said of it.
            if operation.card_index is not None and not operation.prepared:
                try:
                    operation.bind(cards.get(operation.card_index))
                    if operation.other is not None:
                        operation.bind_other(cards.get(operation.other.index))
                except OneCardError as error:
                    operation.settle(error)
                    continue
            shards[operation.shards].append(operation)
        # The shard of what came first, first: of two with one request id, the one that came first is to have it.
        for own in shards.values():
            await self._process(own)

    async def _find_cards(self, operations: Sequence[Operation]) -> Mapping[bytes, Any] | None:
        """What the operations' indexes name; None when the database does not answer, on a new connection either."""
        indexes = {o.card_index for o in operations if o.card_index is not None and not o.prepared}
        indexes |= {o.other.index for o in operations if o.other is not None and not o.prepared}
        if not indexes:
            return {}
        for _ in range(2):
            try:
                return await self._settings.find_cards(await self._transactions.connection(), indexes)
            except (*CONNECTION_LOST, *OUT_OF_RESOURCES) as error:
                log.warning("database connection lost: %s", type(error).__name__)
                await self._transactions.discard()
        return None

    async def _process(self, operations: Sequence[Operation]) -> None:
        if self._settings.keys_may_block:
            operations, asking = _apart(operations)
            if asking:
                self._prepare_aside(asking)
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
                decided, results = await self._transactions.run(operations)
            except LOST_RACE:
                await self._transactions.roll_back()
                await asyncio.sleep(random.uniform(0, RETRY_DELAY_MAX_S))
            except HELD_UP:
                self._call_for_help()
                await self._transactions.roll_back()
                if connections_lost:
                    # Perhaps by our own lost commit, which nobody may be told is not coming.
                    reject(operations, DatabaseUnavailableError())
                    return
                await self._halve(operations, ContendedError())
                return
            except CONNECTION_LOST as error:
                # The next attempt reads the stored answers on a new connection: what was committed is replayed.
                log.warning("database connection lost: %s", type(error).__name__)
                self._call_for_help()
                await self._transactions.discard()
                connections_lost += 1
                if connections_lost > 1:
                    reject(operations, DatabaseUnavailableError())
                    return
            except OUT_OF_RESOURCES as error:
                log.error("database out of resources: %s", type(error).__name__)
                await self._transactions.roll_back()
                reject(operations, DatabaseUnavailableError())
                return
            except Exception as error:
                await self._transactions.roll_back()
                await self._halve(operations, error)
                return
            else:
                for operation, result in zip(decided, results, strict=True):
                    operation.settle(result)
                if len(decided) < len(operations):
                    self._pass_over([o for o in operations if o.ticket.results[o.index] is None])
                return
        await self._halve(operations, ContendedError())

    def _pass_over(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            operation.passed_over += 1
        self._passed_over += operations

    def _call_for_help(self) -> None:
        self.in_trouble = True
        self._on_trouble()


def _apart(operations: Sequence[Operation]) -> tuple[list[Operation], list[Operation]]:
    """What goes on at once, and what waits for the key store: with it what stands behind it in its frame on its card.

    That may follow it, and must not be decided before it.
    """
    at_once: list[Operation] = []
    waiting: list[Operation] = []
    chains: set[tuple[int, int | None]] = set()
    for operation in operations:
        chain = id(operation.ticket), operation.card_id
        if (operation.asks_keys and not operation.prepared) or chain in chains:
            waiting.append(operation)
            if operation.card_id is not None:
                chains.add(chain)
        else:
            at_once.append(operation)
    return at_once, waiting
