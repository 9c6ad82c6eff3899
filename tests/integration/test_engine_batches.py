"""The engine: what fails stands alone, what waits is bounded, and every operation is settled once."""

import asyncio
from collections.abc import Callable

import pytest
from engine_bench import CARDS, NEVER, ONCE, Bench, TrialOperation, Trouble, trial
from google.protobuf.wrappers_pb2 import StringValue

from server.edge.status import to_operation_error
from server.errors import DeadlineError, InternalError, NotFoundError, OverloadedError, UnavailableError


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
    await bench.until_waiting(1)
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
    await bench.until_waiting(1)
    waiting = engine.submit([trial(2), trial(3)])
    refused = [trial(4), trial(5), trial(6)]
    with pytest.raises(OverloadedError) as overloaded:
        engine.submit(refused)
    error = to_operation_error(overloaded.value)
    assert (error.code, error.reason) == (8, "OVERLOADED")
    assert error.retry_delay_ms > 0
    last = engine.submit([trial(4), trial(5)])
    assert engine.waiting == 4
    urgent = engine.submit([trial(6, urgent=True)])
    assert engine.waiting == 5
    await transaction.rollback()
    await urgent
    assert not last.done(), "an urgent operation goes before those that wait"
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


async def test_what_needs_no_key_does_not_wait_for_a_store_that_may_block(bench: Bench) -> None:
    engine, keys = bench.engine(lanes=1, keys_may_block=True), asyncio.Event()
    mixed = [trial(card, keys=keys if card % 2 else None) for card in range(1, 9)]
    held = engine.submit(mixed)
    # On a card that waits for its keys too.
    (other,) = await engine.submit([trial(1)])
    assert isinstance(other, StringValue)
    for operation in mixed:
        assert await bench.rows_of(operation) == (NEVER if operation.asks_keys else ONCE)
    assert not held.done()
    assert engine.waiting == 4
    keys.set()
    assert all(isinstance(result, StringValue) for result in await held)
    for operation in mixed:
        assert await bench.rows_of(operation) == ONCE


async def test_what_stands_behind_it_in_its_frame_waits_with_it(bench: Bench) -> None:
    engine, keys = bench.engine(lanes=1, keys_may_block=True), asyncio.Event()
    frame = [trial(1, keys=keys), trial(1), trial(2)]
    held = engine.submit(frame)
    await engine.submit([trial(3)])
    assert [await bench.rows_of(operation) for operation in frame] == [NEVER, NEVER, ONCE]
    keys.set()
    answers = await held
    assert [answer.value.split()[-1] for answer in answers] == ["10", "20", "10"]


async def test_frame_is_not_cut_between_batches(bench: Bench) -> None:
    sizes: list[int] = []
    engine = bench.engine(
        lanes=2, batch_max=4, observe=lambda operations, _results, _seconds: sizes.append(len(operations))
    )
    await engine.submit([trial(n) for n in range(1, 12)])
    assert sizes == [11]


async def test_operation_whose_keys_fail_stands_alone(bench: Bench) -> None:
    keys = asyncio.Event()
    keys.set()
    trouble = {3: Trouble.PREPARE, 6: Trouble.PREPARE}
    operations = [trial(card, keys=keys, trouble=trouble.get(card)) for card in range(1, 9)]
    results = await bench.engine(lanes=1, keys_may_block=True).submit(operations)
    for operation, result in zip(operations, results, strict=True):
        is_bad = operation.trouble is not None
        assert isinstance(result, InternalError if is_bad else StringValue)
        assert await bench.rows_of(operation) == (NEVER if is_bad else ONCE)


async def test_operations_that_wait_for_keys_count_against_the_queue_and_are_drained(bench: Bench) -> None:
    engine, keys = bench.engine(lanes=1, queue_max=4, keys_may_block=True), asyncio.Event()
    held = engine.submit([trial(card, keys=keys) for card in range(1, 4)])
    await asyncio.sleep(0.05)
    with pytest.raises(OverloadedError):
        engine.submit([trial(4), trial(5)])
    draining = asyncio.ensure_future(engine.drain())
    await asyncio.sleep(0.05)
    assert not draining.done()
    keys.set()
    await draining
    assert all(isinstance(result, StringValue) for result in await held)
