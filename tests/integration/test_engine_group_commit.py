"""The engine on a real PostgreSQL, with a capability that can be told to fail at any step of a batch."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from google.protobuf.wrappers_pb2 import StringValue

from server.database import migrate
from server.database.embedded import EmbeddedPostgres
from server.database.pool import HotPathConnection
from server.edge.status import to_operation_error
from server.engine.business_calendar import BusinessCalendar
from server.engine.group_commit import GroupCommit
from server.engine.lane import LaneSettings
from server.engine.operation import Batch, Capability, MoneyFields, Operation, OperationKind, Outcome, Posting
from server.errors import (
    ContendedError,
    DeadlineError,
    InternalError,
    NotFoundError,
    OverloadedError,
    RequestIdReusedError,
    UnavailableError,
)
from server.settings import Settings
from server.settlement.reconcile import reconcile

CARDS = 64
FIRST_ACCOUNT = 1_000_000
SETTLEMENT_ACCOUNT = 7
ITEM = "trial"


class Trouble(Enum):
    """Where an operation makes its batch fail."""

    PREPARE = "an exception before the lock"
    READ = "an error of the database under the lock"
    DECIDE = "an exception while deciding"
    CHECK = "a violated CHECK in the batch's own statement"
    VALUE = "a value the driver cannot send"
    PERSIST = "an error of the capability's own statement"


@dataclass(slots=True, kw_only=True)
class TrialOperation(Operation):
    """Adds money to a wallet, unless it is told to make trouble."""

    trouble: Trouble | None = None
    refused: bool = False
    lost_races: int = 0
    cut_connections: int = 0


class Trial(Capability):
    """Decides, with an answer that no second decision would give again."""

    def prepare(self, operations: Sequence[TrialOperation]) -> None:
        if any(o.trouble is Trouble.PREPARE for o in operations):
            raise RuntimeError("trouble")

    async def read(self, connection: Any, operations: Sequence[TrialOperation]) -> None:
        if any(o.trouble is Trouble.READ for o in operations):
            await connection.execute("SELECT 1 / 0")

    def decide(self, operation: TrialOperation, batch: Batch) -> Outcome:
        if operation.trouble is Trouble.DECIDE:
            raise RuntimeError("trouble")
        if operation.refused:
            raise NotFoundError("TRIAL_UNKNOWN", "no such thing")
        if batch.switch_key_used:
            return Outcome(StringValue(value=f"{batch.operation_id} duplicate"), 2, "94")
        assert operation.money is not None
        assert operation.account_id is not None
        amount = operation.money.amount_minor
        account = batch.accounts[operation.account_id]
        account.posted_minor += -1_000_000 if operation.trouble is Trouble.CHECK else amount
        account.changed = True
        posting = Posting(SETTLEMENT_ACCOUNT, operation.account_id, amount)
        text = f"{batch.operation_id} holds {account.posted_minor}"
        return Outcome(StringValue(value=text), 1, "00", (posting,))

    async def persist(
        self, connection: Any, batch: Batch, decided: Sequence[tuple[TrialOperation, Outcome]]
    ) -> None:
        for operation, _ in decided:
            if operation.trouble is Trouble.VALUE:
                await connection.execute("SELECT $1::integer", 2**40)
            if operation.trouble is Trouble.PERSIST:
                await connection.execute("INSERT INTO postings DEFAULT VALUES")
            if operation.lost_races:
                operation.lost_races -= 1
                await connection.execute("DO $$ BEGIN RAISE serialization_failure; END $$")
            if operation.cut_connections:
                operation.cut_connections -= 1
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    def replay(self, operation: TrialOperation, response: bytes) -> StringValue:
        return StringValue.FromString(response)


TRIAL = Trial()
_stans = iter(range(1, 1_000_000))


def trial(card: int = 1, **changes: Any) -> TrialOperation:
    """An operation on card 1 to 64 that adds 10 fen."""
    parts: dict[str, Any] = {
        "capability": TRIAL,
        "kind": OperationKind.DEPOSIT,
        "participant_id": "bank-01",
        "request_id": str(uuid.uuid4()),
        "request_digest": b"digest",
        "deadline": asyncio.get_running_loop().time() + 30,
        "terminal_id": "T1",
        "card_id": card,
        "account_id": FIRST_ACCOUNT + card,
        "catalogue_item": ITEM,
        "catalogue_item_version": 1,
        "money": MoneyFields(
            amount_minor=10, stan=next(_stans), mti_class=2, merchant_id="", terminal_time_unix_ms=0
        ),
    }
    return TrialOperation(**parts | changes)


@dataclass
class Bench:
    """Engines on one database, and what the database holds."""

    settings: Settings
    dsn: str
    database: asyncpg.Connection
    engines: list[GroupCommit] = field(default_factory=list)

    def engine(
        self, *, lanes: int = 2, batch_max: int = 512, queue_max: int = 10_000, **parts: Any
    ) -> GroupCommit:
        async def find_cards(_connection: Any, _indexes: Any) -> dict[bytes, Any]:
            return {}

        defaults: dict[str, Any] = {
            "open_connection": lambda: HotPathConnection(self.settings, self.dsn, application_name="trial"),
            "find_cards": find_cards,
            "calendar": BusinessCalendar.of(time_zone="Asia/Shanghai", cutoff="23:00"),
            "request_log_hours": 72,
            "observe": lambda *_: None,
        }
        engine = GroupCommit(
            lanes=lanes,
            batch_max=batch_max,
            queue_max=queue_max,
            lane_settings=LaneSettings(**defaults | parts),
        )
        engine.start()
        self.engines.append(engine)
        return engine

    async def posted_minor(self, card: int) -> int:
        statement = "SELECT posted_minor FROM accounts WHERE account_id = $1"
        return await self.database.fetchval(statement, FIRST_ACCOUNT + card)

    async def rows_of(self, operation: TrialOperation) -> tuple[int, int, int]:
        """Answers, postings and access entries of a request id."""
        row = await self.database.fetchrow(
            "SELECT (SELECT count(*) FROM operations WHERE request_id = $1),"
            " (SELECT count(*) FROM postings JOIN operations USING (operation_id) WHERE request_id = $1),"
            " (SELECT count(*) FROM access_log WHERE request_id = $1)",
            operation.request_id,
        )
        return tuple(row)

    async def other_connection(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.dsn)


@pytest_asyncio.fixture(scope="module")
async def trial_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A migrated database with wallets, shared by the tests of this file."""
    admin = await asyncpg.connect(postgres.dsn(user="postgres", database="postgres"))
    await admin.execute("CREATE DATABASE trial OWNER onecard")
    database = await asyncpg.connect(postgres.dsn(database="trial"))
    await migrate.migrate(database)
    await database.execute(
        "INSERT INTO card_states (card_id, shard, status, transaction_amount_max_minor, day_amount_max_minor)"
        " SELECT n, 0, 2, 1, 1 FROM generate_series(1, $1) AS n",
        CARDS,
    )
    await database.execute(
        "INSERT INTO accounts (account_id, card_id, shard) SELECT $2 + n, n, 0 FROM generate_series(1, $1) AS n",
        CARDS,
        FIRST_ACCOUNT,
    )
    await database.close()
    yield postgres.dsn(database="trial")
    await admin.execute("DROP DATABASE trial WITH (FORCE)")
    await admin.close()


@pytest_asyncio.fixture
async def bench(trial_database: str, postgres: EmbeddedPostgres) -> AsyncIterator[Bench]:
    """Starts with empty wallets, and ends with drained engines and books that agree."""
    database = await asyncpg.connect(trial_database)
    await database.execute("TRUNCATE operations, postings, access_blocks")
    await database.execute("UPDATE accounts SET posted_minor = 0")
    bench = Bench(Settings(socket_dir=postgres.socket_dir), trial_database, database)
    yield bench
    for engine in bench.engines:
        async with asyncio.timeout(20):
            await engine.drain()
    proof = await reconcile(trial_database)
    await database.close()
    assert proof.clean


ONCE, NEVER = (1, 1, 1), (0, 0, 0)


@pytest.mark.parametrize("trouble", list(Trouble), ids=lambda trouble: trouble.name)
@pytest.mark.parametrize("places", [(0,), (8,), (16,), (3, 4, 11)])
async def test_bad_operation_stands_alone_and_its_neighbours_commit(
    bench: Bench, trouble: Trouble, places: tuple[int, ...]
) -> None:
    operations = [trial(card, trouble=trouble if card - 1 in places else None) for card in range(1, 18)]
    results = await bench.engine(lanes=1).submit(operations)
    for place, (operation, result) in enumerate(zip(operations, results, strict=True)):
        if place in places:
            assert isinstance(result, InternalError)
            assert "trouble" not in result.message
            assert await bench.rows_of(operation) == NEVER
            assert await bench.posted_minor(place + 1) == 0
        else:
            assert isinstance(result, StringValue), result
            assert await bench.rows_of(operation) == ONCE
            assert await bench.posted_minor(place + 1) == 10


async def test_refused_operation_leaves_nothing_and_does_not_split_its_batch(bench: Bench) -> None:
    batches: list[int] = []
    engine = bench.engine(lanes=1, observe=lambda operations, *_: batches.append(len(operations)))
    operations = [trial(card, refused=card == 3) for card in range(1, 6)]
    results = await engine.submit(operations)
    assert isinstance(results[2], NotFoundError)
    assert await bench.rows_of(operations[2]) == NEVER
    assert [await bench.rows_of(o) for n, o in enumerate(operations) if n != 2] == [ONCE] * 4
    assert batches == [5]


@pytest.mark.parametrize("races", [1, 4])
async def test_lost_races_are_run_again(bench: Bench, races: int) -> None:
    operations = [trial(1), trial(2, lost_races=races), trial(1)]
    results = await bench.engine().submit(operations)
    assert all(isinstance(result, StringValue) for result in results)
    assert [await bench.posted_minor(card) for card in (1, 2)] == [20, 10]


async def test_operation_that_always_loses_is_aborted_alone(bench: Bench) -> None:
    operations = [trial(card, lost_races=1_000 if card == 2 else 0) for card in range(1, 5)]
    results = await bench.engine().submit(operations)
    assert isinstance(results[1], ContendedError)
    assert to_operation_error(results[1]).code == 10
    assert [await bench.rows_of(o) for o in operations] == [ONCE, NEVER, ONCE, ONCE]


async def test_deadlock_is_resolved_by_another_attempt(bench: Bench) -> None:
    stranger = await bench.other_connection()
    lock = "SELECT 1 FROM card_states WHERE card_id = $1 FOR UPDATE"
    transaction = stranger.transaction()
    await transaction.start()
    await stranger.execute(lock, 2)
    submitted = bench.engine(lanes=1).submit([trial(1), trial(2)])
    await _until_waiting(bench, 1)
    # Card 1 is the engine's, card 2 ours: each waits for the other until PostgreSQL ends one of the two.
    await stranger.execute(lock, 1)
    await transaction.commit()
    results = await submitted
    await stranger.close()
    assert all(isinstance(result, StringValue) for result in results)
    assert [await bench.posted_minor(card) for card in (1, 2)] == [10, 10]


async def _until_waiting(bench: Bench, count: int) -> None:
    """Returns when ``count`` sessions wait for a lock."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(10):
        while await bench.database.fetchval(statement) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("cuts", [1, 2])
async def test_lost_connection_is_replaced_once_and_then_told(bench: Bench, cuts: int) -> None:
    engine = bench.engine(lanes=1)
    operation = trial(1, cut_connections=cuts)
    (result,) = await engine.submit([operation])
    if cuts == 1:
        assert isinstance(result, StringValue)
    else:
        assert isinstance(result, UnavailableError)
        again = trial(1, request_id=operation.request_id, money=operation.money)
        (result,) = await engine.submit([again])
        assert isinstance(result, StringValue)
    assert await bench.rows_of(operation) == ONCE
    assert await bench.posted_minor(1) == 10


async def test_twins_in_two_engines_at_once_have_one_effect_and_one_answer(bench: Bench) -> None:
    engines = [bench.engine(), bench.engine()]
    originals = [trial(1 + n % 8) for n in range(100)]
    twins = [
        (original, trial(original.card_id, request_id=original.request_id, money=original.money))
        for original in originals
    ]
    results = await asyncio.gather(
        *(
            engines[(n + side) % 2].submit([twin])
            for n, pair in enumerate(twins)
            for side, twin in enumerate(pair)
        )
    )
    for number, (original, _) in enumerate(twins):
        (first,), (second,) = results[2 * number], results[2 * number + 1]
        assert isinstance(first, StringValue)
        assert first.SerializeToString() == second.SerializeToString()
        assert await bench.rows_of(original) == ONCE
    assert sum([await bench.posted_minor(card) for card in range(1, 9)]) == 1_000


async def test_one_id_on_two_cards_in_two_engines_has_one_outcome(bench: Bench) -> None:
    engines = [bench.engine(), bench.engine()]

    async def race(number: int) -> tuple[type, ...]:
        first = trial(1 + number % 8)
        second = trial(9 + number % 8, request_id=first.request_id, request_digest=b"other")
        results = await asyncio.gather(
            engines[number % 2].submit([first]), engines[1 - number % 2].submit([second])
        )
        assert await bench.rows_of(first) == ONCE
        return tuple(sorted((type(result) for (result,) in results), key=lambda kind: kind.__name__))

    outcomes = {await race(number) for number in range(60)}
    assert outcomes == {(RequestIdReusedError, StringValue)}


async def test_one_switch_key_on_two_cards_in_two_engines_approves_one(bench: Bench) -> None:
    engines = [bench.engine(), bench.engine()]

    async def race(number: int) -> list[bool]:
        first = trial(1 + number % 8)
        second = trial(9 + number % 8, money=first.money)
        results = await asyncio.gather(
            engines[number % 2].submit([first]), engines[1 - number % 2].submit([second])
        )
        return sorted("duplicate" in result.value for (result,) in results)

    assert [await race(number) for number in range(60)] == [[False, True]] * 60


async def test_operations_of_callers_that_went_away_commit_once(bench: Bench) -> None:
    engine = bench.engine()
    operations = [trial(1 + n % CARDS) for n in range(200)]
    for number, operation in enumerate(operations):
        submitted = engine.submit([operation])
        if number % 2:
            await asyncio.sleep(0)
        submitted.cancel()
    await engine.drain()
    for operation in operations:
        assert await bench.rows_of(operation) == ONCE
    assert sum([await bench.posted_minor(card) for card in range(1, CARDS + 1)]) == 2_000


async def test_deadline_that_passes_before_the_decision_applies_nothing(bench: Bench) -> None:
    holder = await bench.other_connection()
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT 1 FROM card_states WHERE card_id = 1 FOR UPDATE")
    late = trial(1, deadline=asyncio.get_running_loop().time() + 0.05)
    in_time = trial(1)
    submitted = bench.engine(lanes=1).submit([late, in_time])
    await _until_waiting(bench, 1)
    await asyncio.sleep(0.1)
    await transaction.rollback()
    results = await submitted
    await holder.close()
    assert isinstance(results[0], DeadlineError)
    assert isinstance(results[1], StringValue)
    assert (await bench.rows_of(late), await bench.rows_of(in_time)) == (NEVER, ONCE)


async def test_stored_answer_is_given_even_after_the_deadline(bench: Bench) -> None:
    engine = bench.engine()
    operation = trial(1)
    (answer,) = await engine.submit([operation])
    repeat = trial(1, request_id=operation.request_id, money=operation.money, deadline=0.0)
    assert await engine.submit([repeat]) == [answer]


async def test_full_queue_refuses_all_or_nothing_and_says_when_to_come_back(bench: Bench) -> None:
    holder = await bench.other_connection()
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT 1 FROM card_states WHERE card_id = 1 FOR UPDATE")
    engine = bench.engine(lanes=1, batch_max=1, queue_max=4)
    running = engine.submit([trial(1)])
    await _until_waiting(bench, 1)
    waiting = engine.submit([trial(2), trial(3)])
    refused = [trial(4), trial(5), trial(6)]
    with pytest.raises(OverloadedError) as overloaded:
        engine.submit(refused)
    error = to_operation_error(overloaded.value)
    assert (error.code, error.reason) == (8, "OVERLOADED")
    assert error.retry_delay_ms > 0
    last = engine.submit([trial(4), trial(5)])
    assert engine.waiting == 4
    await transaction.rollback()
    for submitted in (running, waiting, last):
        assert all(isinstance(result, StringValue) for result in await submitted)
    await holder.close()
    assert [await bench.rows_of(operation) for operation in refused] == [NEVER] * 3


async def test_draining_engine_finishes_what_waits_and_refuses_the_rest(bench: Bench) -> None:
    engine = bench.engine(lanes=2, batch_max=3)
    submitted = engine.submit([trial(1 + n % CARDS) for n in range(50)])
    draining = asyncio.create_task(engine.drain())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="stopping"):
        engine.submit([trial(1)])
    assert all(isinstance(result, StringValue) for result in await submitted)
    await draining


async def test_observer_that_fails_does_not_stop_the_lane(bench: Bench) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("trouble")

    engine = bench.engine(lanes=1, observe=fail)
    for _ in range(3):
        async with asyncio.timeout(10):
            (result,) = await engine.submit([trial(1)])
        assert isinstance(result, StringValue)


async def test_many_operations_of_all_kinds_are_settled_once_each(bench: Bench) -> None:
    """Neighbours, twins, troubles and lost races at once, over two engines: every one gets its own answer."""
    engines = [bench.engine(batch_max=16), bench.engine(batch_max=16)]
    kinds: list[Callable[[int], TrialOperation]] = [
        lambda n: trial(1 + n % CARDS),
        lambda n: trial(1 + n % CARDS, trouble=Trouble.CHECK),
        lambda n: trial(1 + n % CARDS, lost_races=1),
        lambda n: trial(1 + n % CARDS, refused=True),
        lambda n: trial(1 + n % CARDS, trouble=Trouble.PERSIST),
        lambda n: trial(1 + n % CARDS),
    ]
    operations = [kinds[n % len(kinds)](n) for n in range(360)]
    chunks = [operations[start : start + 12] for start in range(0, 360, 12)]
    answered = await asyncio.gather(*(engines[n % 2].submit(chunk) for n, chunk in enumerate(chunks)))
    results = [result for chunk in answered for result in chunk]
    expected = [StringValue, InternalError, StringValue, NotFoundError, InternalError, StringValue]
    assert [type(result) for result in results] == expected * 60
    assert sum([await bench.posted_minor(card) for card in range(1, CARDS + 1)]) == 1_800
