"""The engine against itself: lost races, lost connections, twins in two engines, and both sides of the cut-off."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from engine_bench import FIRST_ACCOUNT, NEVER, ONCE, Bench, trial
from google.protobuf.wrappers_pb2 import StringValue

from server.database.pool import HotPathConnection
from server.edge.status import to_operation_error
from server.engine.business_calendar import BusinessCalendar
from server.engine.operation import Account, Batch
from server.engine.transaction import PASSED_OVER_MAX
from server.engine.writer import BatchWriter
from server.errors import ContendedError, RequestIdReusedError, UnavailableError


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
    await bench.until_waiting(1)
    # Card 1 is the engine's, card 2 ours: each waits for the other until PostgreSQL ends one of the two.
    await stranger.execute(lock, 1)
    await transaction.commit()
    results = await submitted
    await stranger.close()
    assert all(isinstance(result, StringValue) for result in results)
    assert [await bench.posted_minor(card) for card in (1, 2)] == [10, 10]


async def test_a_wallet_that_was_changed_without_its_card_is_read_again(bench: Bench) -> None:
    """A row has another place after every change; what a batch read of it is then out of date."""
    hot = HotPathConnection(bench.settings, bench.dsn, application_name="trial")
    connection = await hot.get()
    read = "SELECT shard, account_id, posted_minor, held_minor, ctid FROM accounts WHERE account_id = $1"
    account = Account(*await connection.fetchrow(read, FIRST_ACCOUNT + 1), changed=True)
    today = datetime.now(UTC).date()
    batch = Batch({}, {account.account_id: account}, datetime.now(UTC), today, today, "")
    account.posted_minor = 0
    await BatchWriter((0,)).write(connection, batch)
    with pytest.raises(asyncpg.SerializationError):
        await BatchWriter((0,)).write(connection, batch)
    await hot.close()


async def test_a_used_switch_key_is_found_whether_or_not_keys_were_looked_up(bench: Bench) -> None:
    engine = bench.engine(lanes=1)
    first = trial(1)
    await engine.submit([first])
    for batch in range(4):
        # The first of them loses to the index, those behind it look up.
        duplicate, other = trial(2, money=first.money), trial(3)
        declined, answered = await engine.submit([duplicate, other])
        assert "duplicate" in declined.value
        assert answered.value.endswith(f"holds {10 * (batch + 1)}")
        assert await bench.rows_of(duplicate) == (1, 0, 1)
        assert await bench.rows_of(other) == ONCE
    assert await bench.posted_minor(2) == 0


async def test_a_held_card_holds_up_no_other_of_its_batch(bench: Bench) -> None:
    engine = bench.engine(lanes=1)
    stranger = await bench.other_connection()
    await stranger.execute("BEGIN")
    await stranger.execute("SELECT 1 FROM card_states WHERE card_id = 1 FOR UPDATE")
    on_held, on_free = [trial(1), trial(1)], [trial(2), trial(3)]
    waiting, answered = engine.submit(on_held), engine.submit(on_free)
    assert all(isinstance(answer, StringValue) for answer in await answered)
    assert not waiting.done()
    await stranger.execute("COMMIT")
    answers = await waiting
    # In their order, each once, with all that belongs to it.
    assert [answer.value.split()[-1] for answer in answers] == ["10", "20"]
    for operation in on_held + on_free:
        assert await bench.rows_of(operation) == ONCE
    await stranger.close()


async def test_a_card_that_is_held_again_and_again_is_waited_for_in_the_end(bench: Bench) -> None:
    engine = bench.engine(lanes=1)
    stranger = await bench.other_connection()
    await stranger.execute("BEGIN")
    await stranger.execute("SELECT 1 FROM card_states WHERE card_id = 1 FOR UPDATE")
    waiting = engine.submit([trial(1)])
    batches = 0
    async with asyncio.timeout(15):
        while not waiting.done():
            await engine.submit([trial(2)])
            batches += 1
    (refused,) = await waiting
    assert isinstance(refused, ContendedError)
    assert batches <= PASSED_OVER_MAX + 1
    await stranger.close()


async def test_card_held_by_another_session_is_contended_alone(bench: Bench) -> None:
    stranger = await bench.other_connection()
    transaction = stranger.transaction()
    await transaction.start()
    await stranger.execute("SELECT 1 FROM card_states WHERE card_id = 3 FOR UPDATE")
    operations = [trial(card) for card in range(1, 6)]
    # The stranger does not let go before they are all answered.
    async with asyncio.timeout(15):
        results = await bench.engine(lanes=1).submit(operations)
    assert [await bench.rows_of(o) for o in operations] == [ONCE, ONCE, NEVER, ONCE, ONCE]
    await transaction.rollback()
    await stranger.close()
    assert isinstance(results[2], ContendedError)
    assert all(isinstance(result, StringValue) for result in results[:2] + results[3:])
    held = operations[2]
    again = trial(3, request_id=held.request_id, money=held.money)
    (result,) = await bench.engine().submit([again])
    assert isinstance(result, StringValue)
    assert await bench.posted_minor(3) == 10


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


# Always at least a day apart.
EARLY = BusinessCalendar.of(time_zone="Etc/GMT+12", cutoff="23:59")
LATE = BusinessCalendar.of(time_zone="Pacific/Kiritimati", cutoff="00:00")


async def test_outcome_of_an_earlier_business_date_is_found_again(bench: Bench) -> None:
    early, late = bench.engine(calendar=EARLY), bench.engine(calendar=LATE)
    operation = trial(1)
    (answer,) = await early.submit([operation])
    repeat = trial(1, request_id=operation.request_id, money=operation.money)
    assert await late.submit([repeat]) == [answer]
    assert await bench.rows_of(operation) == ONCE


async def test_switch_key_may_be_used_again_on_another_business_date(bench: Bench) -> None:
    early, late = bench.engine(calendar=EARLY), bench.engine(calendar=LATE)
    operation = trial(1)
    await early.submit([operation])
    (next_day,) = await late.submit([trial(1, money=operation.money)])
    (same_day,) = await late.submit([trial(1, money=operation.money)])
    assert "duplicate" not in next_day.value
    assert "duplicate" in same_day.value


async def test_twins_on_both_sides_of_the_cut_off_at_once_have_one_outcome(bench: Bench) -> None:
    engines = [bench.engine(calendar=EARLY), bench.engine(calendar=LATE)]
    for _ in range(40):
        operation = trial(1)
        twin = trial(1, request_id=operation.request_id, money=operation.money)
        (first,), (second,) = await asyncio.gather(engines[0].submit([operation]), engines[1].submit([twin]))
        assert first == second
        assert await bench.rows_of(operation) == ONCE


async def test_date_closed_before_its_cut_off_moves_its_operations_to_the_next(bench: Bench) -> None:
    engine = bench.engine(lanes=1)
    before = trial(1)
    await engine.submit([before])
    statement = "SELECT business_date FROM operations WHERE request_id = $1"
    today = await bench.database.fetchval(statement, before.request_id)
    # By a clock or a calendar that is ahead of this lane's.
    await bench.database.execute("INSERT INTO settlement_days VALUES ($1, 1, 1, 1, now())", today)
    try:
        for late in (trial(1), trial(2)):
            (result,) = await engine.submit([late])
            assert isinstance(result, StringValue), result
            assert await bench.database.fetchval(statement, late.request_id) == today + timedelta(days=1)
            assert await bench.rows_of(late) == ONCE
        (again,) = await engine.submit([before])
        assert isinstance(again, StringValue)
        assert await bench.rows_of(before) == ONCE
    finally:
        superuser = await asyncpg.connect(bench.superuser_dsn)
        await superuser.execute("SET session_replication_role = replica")
        await superuser.execute("DELETE FROM settlement_days")
        await superuser.close()
