"""Events: every one once and in the order of locks, whatever is committed, rolled back, cut off or killed."""

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Sequence

import asyncpg
import pytest
from onecard.v1 import settlement_pb2 as pb
from settlement_site import CARDS_PER_SHARD, PURCHASE, SHARDS, Lane, Move, Site, taken

from clients.errors import NotAllowedError

CARDS = CARDS_PER_SHARD * SHARDS


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
