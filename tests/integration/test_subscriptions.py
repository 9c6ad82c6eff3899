"""Subscriptions to events: where they go on, what ends them, how many there may be."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from onecard.v1 import settlement_pb2 as pb
from settlement_site import WAIT_S, Move, Site, taken

from clients.errors import (
    MalformedRequestError,
    NotAllowedError,
    OverloadedError,
    StateConflictError,
    UnavailableError,
)
from clients.events import answers, subscribe
from clients.service_client import OneCardClient
from clients.services.settlement import SUBSCRIBE_EVENTS
from server.settlement import subscriptions
from server.settlement.positions import roll_up_step


async def to_the_end(messages: AsyncIterator[pb.SubscribeEventsResponse]) -> None:
    async for _ in messages:
        pass


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
