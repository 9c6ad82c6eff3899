"""Events: every one once and in the order of locks, whatever is committed, rolled back, cut off or killed."""

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
import pytest_asyncio
from onecard.v1 import settlement_pb2 as pb
from settlement_site import CARDS_PER_SHARD, PURCHASE, SHARDS, Lane, Move, Site

from clients.errors import (
    MalformedRequestError,
    NotAllowedError,
    OverloadedError,
    StateConflictError,
    UnavailableError,
)
from clients.events import answers, subscribe
from clients.service_client import SUBSCRIBE_EVENTS, OneCardClient
from server.settlement import subscriptions
from server.settlement.positions import roll_up_step

WAIT_S = 30.0
CARDS = CARDS_PER_SHARD * SHARDS


@pytest_asyncio.fixture
async def served(site: Site) -> AsyncIterator[Site]:
    """One worker serves the site, and sends signs of life."""
    await asyncio.to_thread(site.start_worker)
    yield site


async def taken(
    client: OneCardClient, *, through: int, after: int = 0, kinds: Sequence[int] = (), participant: str = ""
) -> list[pb.Event]:
    """The events up to a number, from one subscription."""
    request = pb.SubscribeEventsRequest(after_sequence=after, kinds=kinds, participant=participant)  # type: ignore[arg-type]
    events: list[pb.Event] = []
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(client.subscribe_events(request)) as messages:
        async for message in messages:
            events += message.events
            if message.through_sequence >= through:
                return events
    raise AssertionError("a subscription has no end")


async def to_the_end(messages: AsyncIterator[pb.SubscribeEventsResponse]) -> None:
    async for _ in messages:
        pass


async def keep_writing(lane: Lane, *, seed: int, transactions: int) -> None:
    """Transactions of one to four cards, drawn so that writers meet, some of which are rolled back."""
    draw = random.Random(seed)
    for _ in range(transactions):
        shard = draw.randrange(SHARDS)
        cards = draw.sample([n for n in range(1, CARDS + 1) if n % SHARDS == shard][:6], draw.randint(1, 4))
        moves = [Move(card_id=card, participant_id=draw.choice(["bank-01", "bank-02"])) for card in cards]
        await lane.write(moves, delay_s=draw.choice([0, 0, 0.002, 0.01]), rolls_back=draw.random() < 0.2)


def assert_whole(events: Sequence[pb.Event], lanes: Sequence[Lane]) -> None:
    """Each operation that was committed once, numbers without a gap, each card's in the order of its locks."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    committed = [operation.operation_id for lane in lanes for operation in lane.written]
    assert sorted(int(event.rrn) for event in events) == sorted(committed)
    assert len(set(committed)) == len(committed)


def assert_order_of_locks(events: Sequence[pb.Event]) -> None:
    """Decision times of a card's events ascend: each was taken under the card's lock."""
    of_card: dict[int, list[int]] = defaultdict(list)
    for event in events:
        of_card[event.card_id].append(event.decided_at_unix_us)
    assert of_card
    for times in of_card.values():
        assert times == sorted(times)
        assert len(set(times)) == len(times)


async def test_no_event_is_lost_or_doubled_while_writers_and_subscribers_come_and_go(served: Site) -> None:
    lanes = [await served.lane() for _ in range(6)]
    writing = asyncio.gather(*(keep_writing(lane, seed=n, transactions=60) for n, lane in enumerate(lanes)))

    async def subscribe(seed: int) -> list[pb.Event]:
        """Leaves after a few messages, and comes back after the last number it was told."""
        draw = random.Random(seed)
        events: list[pb.Event] = []
        after = 0
        async with served.client("operator-01") as client:
            while True:
                messages = client.subscribe_events(pb.SubscribeEventsRequest(after_sequence=after))
                async with contextlib.aclosing(messages):
                    for _ in range(draw.randint(1, 6)):
                        message = await anext(messages)
                        events += message.events
                        after = message.through_sequence
                        if writing.done() and after == sum(len(lane.written) for lane in lanes):
                            return events

    async with asyncio.timeout(60):
        streams = await asyncio.gather(*(subscribe(seed) for seed in range(3)), writing)
    for events in streams[:3]:
        assert_whole(events, lanes)
        assert_order_of_locks(events)
    assert len(streams[0]) > 300


async def test_order_of_events_is_the_order_in_which_a_card_was_locked(served: Site) -> None:
    lanes = [await served.lane() for _ in range(4)]
    order: list[int] = []

    async def contend(lane: Lane) -> None:
        for _ in range(25):
            # The slow one holds the card while the others wait for it; who gets it next is PostgreSQL's choice.
            (written,) = await lane.write([Move(card_id=2)], delay_s=random.choice([0, 0.003]))
            order.append(written.operation_id)

    await asyncio.gather(*(contend(lane) for lane in lanes))
    balances = await served.database.fetchval("SELECT posted_minor FROM accounts WHERE card_id = 2")
    assert balances == 100
    async with served.client("operator-01") as client:
        events = await taken(client, through=100)
    # Each saw the balance that the one before left, so the order by time of decision is that of the locks.
    decided = await served.database.fetch("SELECT operation_id FROM operations ORDER BY decided_at")
    assert [int(event.rrn) for event in events] == [row["operation_id"] for row in decided]


async def test_transaction_that_began_first_and_ends_last_is_skipped_by_nobody(served: Site) -> None:
    slow, quick = await served.lane(), await served.lane()
    late = asyncio.create_task(slow.write([Move(card_id=2)], delay_s=0.6))
    await asyncio.sleep(0.1)
    for _ in range(5):
        await quick.write([Move(card_id=4)])
    async with served.client("operator-01") as client:
        early = await taken(client, through=5)
        (written,) = await late
        assert written.operation_id not in {int(event.rrn) for event in early}
        (event,) = await taken(client, after=5, through=6)
    assert (event.sequence, int(event.rrn)) == (6, written.operation_id)


async def test_subscription_goes_on_over_killed_workers(served: Site) -> None:
    await asyncio.to_thread(served.start_worker)
    lanes = [await served.lane() for _ in range(3)]
    transactions = 120
    writing = asyncio.gather(
        *(keep_writing(lane, seed=10 + n, transactions=transactions) for n, lane in enumerate(lanes))
    )

    async def kill() -> None:
        while not writing.done():
            await asyncio.sleep(0.4)
            served.kill(served.workers.pop(0))
            await asyncio.to_thread(served.start_worker)

    events: list[pb.Event] = []
    killing = asyncio.create_task(kill())
    async with asyncio.timeout(90), served.client("operator-01", channels=2) as client:
        messages = client.subscribe_events(pb.SubscribeEventsRequest())
        async with contextlib.aclosing(messages):
            async for message in messages:
                events += message.events
                if writing.done() and len(events) >= sum(len(lane.written) for lane in lanes):
                    break
    await killing
    assert_whole(events, lanes)


async def test_participant_sees_its_own_operations_and_no_card_number(served: Site) -> None:
    lane = await served.lane()
    await lane.write([Move(card_id=2), Move(card_id=4, participant_id="bank-02"), Move(card_id=6)])
    await lane.write(
        [Move(card_id=2, kind=15), Move(card_id=4, kind=PURCHASE, reason=14, response_code="51")]
    )
    async with served.client("bank-01") as bank, served.client("operator-01") as operator:
        own = await taken(bank, through=5)
        every = await taken(operator, through=5)
        of_other = await taken(operator, through=5, participant="bank-02")
        purchases = await taken(operator, through=5, kinds=[pb.EVENT_KIND_PURCHASE])
        with pytest.raises(NotAllowedError, match="OPERATOR_ONLY"):
            await taken(bank, through=5, participant="bank-02")
    assert [(event.sequence, event.participant, event.card_id) for event in own] == [
        (1, "bank-01", 0),
        (3, "bank-01", 0),
        (5, "bank-01", 0),
    ]
    # The place that a reversal keeps is counted and shown to nobody.
    assert [(event.sequence, event.card_id) for event in every] == [(1, 2), (2, 4), (3, 6), (5, 4)]
    assert [event.sequence for event in of_other] == [2]
    assert [(event.sequence, event.response_code, event.reason) for event in purchases] == [(5, "51", 14)]


async def test_event_tells_the_operation(served: Site) -> None:
    lane = await served.lane()
    (first,) = await lane.write([Move(card_id=2, amount_minor=900)])
    (second,) = await lane.write(
        [
            Move(
                card_id=2,
                amount_minor=500,
                kind=PURCHASE,
                response_code="10",
                reason=15,
                approved_minor=300,
                flags=3,
                original_operation_id=first.operation_id,
            )
        ]
    )
    async with served.client("bank-01") as client:
        event = (await taken(client, through=2))[-1]
    row = await served.database.fetchrow(
        "SELECT * FROM operations WHERE operation_id = $1", second.operation_id
    )
    assert event == pb.Event(
        sequence=2,
        rrn=f"{second.operation_id:012}",
        request_id=str(row["request_id"]),
        kind=pb.EVENT_KIND_PURCHASE,
        response_code="10",
        reason=15,
        amount_minor=500,
        approved_minor=300,
        business_date=f"{row['business_date']:%Y%m%d}",
        decided_at_unix_us=round(row["decided_at"].timestamp() * 1_000_000),
        original_rrn=f"{first.operation_id:012}",
        terminal_id="T1",
        merchant_id="M1",
        stan=row["stan"],
        participant="bank-01",
        is_forced_post=True,
    )


async def test_resume_in_the_middle_of_a_batch_repeats_and_skips_nothing(served: Site) -> None:
    lane = await served.lane()
    await lane.write([Move(card_id=2 + n % 2 * 2) for n in range(700)])
    await lane.write([Move(card_id=2)])
    async with served.client("operator-01") as client:
        for after in (0, 1, 255, 256, 511, 699, 700):
            events = await taken(client, after=after, through=701)
            assert [event.sequence for event in events] == list(range(after + 1, 702))


async def test_idle_subscription_gives_signs_of_life_and_then_the_event(served: Site) -> None:
    lane = await served.lane()
    await lane.write([Move(card_id=2)])
    async with served.client("bank-01") as client, asyncio.timeout(WAIT_S):
        messages = client.subscribe_events(pb.SubscribeEventsRequest(after_sequence=1))
        idle = await anext(messages)
        assert (list(idle.events), idle.through_sequence) == ([], 1)
        clock = asyncio.get_running_loop().time
        await lane.write([Move(card_id=2)])
        committed_s = clock()
        message = await anext(messages)
        # Nobody but the subscription itself numbers here: no housekeeper runs.
        assert clock() - committed_s < 1
        assert [event.sequence for event in message.events] == [2]
        await messages.aclose()


async def test_numbers_that_were_not_given_yet_are_refused(served: Site) -> None:
    async with served.client("bank-01") as client:
        for after in (-1, 1):
            with pytest.raises(MalformedRequestError) as refused:
                await taken(client, after=after, through=2)
            assert refused.value.field == "after_sequence"
        with pytest.raises(MalformedRequestError, match="kinds"):
            await taken(client, kinds=[0], through=1)


async def test_caller_has_a_bounded_number_of_subscriptions(served: Site) -> None:
    lane = await served.lane()
    await lane.write([Move(card_id=2)])
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(served.client("bank-01"))
        for _ in range(subscriptions.SUBSCRIPTIONS_PER_CALLER_MAX):
            messages = client.subscribe_events(pb.SubscribeEventsRequest())
            await anext(messages)
            stack.push_async_callback(messages.aclose)
        with pytest.raises(OverloadedError):
            await anext(_once(client))
        # The places of calls are not touched, nor those of others.
        await client.list_closings(pb.ListClosingsRequest())
        async with served.client("bank-02") as other:
            await taken(other, through=1)


def _once(client: OneCardClient) -> AsyncIterator[pb.SubscribeEventsResponse]:
    """A subscription that is not asked for again."""
    return subscribe(client.channel, SUBSCRIBE_EVENTS, pb.SubscribeEventsRequest(), patience_s=0)


async def test_withdrawn_grant_ends_the_open_stream(served: Site) -> None:
    lane = await served.lane()
    await lane.write([Move(card_id=2)])
    async with served.client("bank-01") as client, asyncio.timeout(WAIT_S):
        messages = client.subscribe_events(pb.SubscribeEventsRequest())
        await anext(messages)
        await served.database.execute(
            "DELETE FROM participant_grants WHERE participant_id = 'bank-01' AND grant_value = 'settlement_events'"
        )
        with pytest.raises(NotAllowedError, match="RPC_CLASS_NOT_GRANTED"):
            await to_the_end(messages)


async def test_worker_that_stops_drains_its_subscriptions(served: Site) -> None:
    lane = await served.lane()
    await lane.write([Move(card_id=2)])
    async with served.client("bank-01") as client, asyncio.timeout(WAIT_S):
        messages = answers(client.channel, SUBSCRIBE_EVENTS, pb.SubscribeEventsRequest())
        await anext(messages)
        served.workers[0].terminate()
        with pytest.raises(UnavailableError, match="DRAINING"):
            await to_the_end(messages)
    assert await asyncio.to_thread(served.workers[0].wait, 10) == 0


async def test_archived_events_are_told_and_never_skipped(served: Site) -> None:
    lane = await served.lane()
    (written,) = await lane.write([Move(card_id=2)])
    yesterday = await served.database.fetchval("SELECT current_date - 1")
    await lane.write([Move(card_id=2)], business_date=yesterday)
    await lane.write([Move(card_id=2)])
    async with served.client("bank-01") as client:
        await taken(client, through=3)
        await served.database.execute(
            f"ALTER TABLE operations DETACH PARTITION operations_{yesterday:%Y%m%d}"
        )
        await served.database.fetchval("SELECT sequence_events(10)")
        assert await roll_up_step(lane.connection) == 3
        with pytest.raises(StateConflictError, match=r"EVENTS_ARCHIVED.*all after number 2 are online"):
            await taken(client, after=0, through=3)
        (event,) = await taken(client, after=2, through=3)
    assert int(event.rrn) > written.operation_id


async def test_search_moves_on_but_never_past_a_running_transaction(site: Site) -> None:
    slow, quick = await site.lane(), await site.lane()
    statement = "SELECT scan_from FROM event_head"
    late = asyncio.create_task(slow.write([Move(card_id=2)], delay_s=0.4))
    await asyncio.sleep(0.1)
    began = await site.database.fetchval(
        "SELECT min(xact_start) FROM pg_stat_activity WHERE state LIKE 'idle in%'"
    )
    await quick.write([Move(card_id=4)])
    await site.database.fetchval("SELECT sequence_events(10)")
    assert await site.database.fetchval(statement) == began
    await late
    await site.database.fetchval("SELECT sequence_events(10)")
    assert await site.database.fetchval("SELECT count(*) FROM event_batches WHERE sequence IS NULL") == 0
    # With more waiting than one statement numbers, the search begins where it did.
    for _ in range(3):
        await quick.write([Move(card_id=4)])
    await site.database.execute("UPDATE event_head SET scan_from = now() - interval '1 minute'")
    before = await site.database.fetchval(statement)
    assert await site.database.fetchval("SELECT sequence_events(2)") == 4
    assert await site.database.fetchval(statement) == before
    assert await site.database.fetchval("SELECT sequence_events(2)") == 5
    assert await site.database.fetchval(statement) > before


async def test_event_that_a_clock_put_into_the_past_is_found_all_the_same(site: Site) -> None:
    lane = await site.lane()
    await lane.write([Move(card_id=2)])
    assert await site.database.fetchval("SELECT sequence_events(10)") == 1
    await site.database.execute("UPDATE event_head SET scan_from = now() + interval '1 minute'")
    await lane.write([Move(card_id=2)])
    assert await site.database.fetchval("SELECT sequence_events(10)") == 1
    assert await site.database.fetchval("SELECT sequence_events(10, true)") == 2


async def test_numbering_inside_another_snapshot_is_refused(site: Site) -> None:
    async with site.database.transaction(isolation="repeatable_read"):
        with pytest.raises(asyncpg.InvalidTransactionStateError):
            await site.database.fetchval("SELECT sequence_events(10)")


@pytest.mark.parametrize("change", ["sequence = sequence + 1", "operation_count = 7", "decided_at = now()"])
async def test_number_is_given_once(site: Site, change: str) -> None:
    await (await site.lane()).write([Move(card_id=2)])
    await site.database.fetchval("SELECT sequence_events(10)")
    with pytest.raises(asyncpg.RestrictViolationError):
        await site.database.execute(f"UPDATE event_batches SET {change}")
