"""The operator's event feed: each purchase that was acknowledged while a worker was killed is in it once, in order."""

import asyncio
import contextlib
from collections.abc import Set

from onecard.v1 import settlement_pb2 as pb

from clients.demo.scorecard import Scorecard
from clients.service_client import OneCardClient

TITLE = "events"
# Numbers are given behind the commits.
FEED_S_MAX = 20.0


async def play(scorecard: Scorecard, *, terminals: OneCardClient, rrns: Set[str]) -> None:
    """Reads the feed from its beginning until every one of ``rrns`` has come, and then as far as it is."""
    events: list[pb.Event] = []
    missing = set(rrns)
    feed = terminals.subscribe_events(
        pb.SubscribeEventsRequest(kinds=[pb.EVENT_KIND_PURCHASE, pb.EVENT_KIND_COMPLETION])
    )
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FEED_S_MAX), contextlib.aclosing(feed):
            async for response in feed:
                events += response.events
                missing -= {event.rrn for event in response.events}
                if not missing:
                    break
    sequences = [event.sequence for event in events]
    in_order = sequences == sorted(set(sequences)) and len({event.rrn for event in events}) == len(events)
    forced = sum(event.is_forced_post for event in events)
    text = f"{len(rrns):,} acknowledged purchases are among {len(events):,} events, each once and in order"
    scorecard.event(TITLE, text, expected=(0, True), got=(len(missing), in_order))
    scorecard.event(TITLE, f"{forced} of them was posted by force: the late hotel's", expected=1, got=forced)
