"""Settlement in a whole core: its workers, its housekeeper, its own operations."""

import asyncio
import contextlib
import time
import urllib.request
from collections.abc import AsyncIterator

import psutil
import pytest
from core_under_test import Caller, Core, card_issue, loss_lift, loss_report, purchase, refusal_of, without
from onecard.v1 import settlement_pb2 as pb
from onecard.v1 import settlement_pb2_grpc
from running_instance import Instance

from server.settlement.reconcile import reconcile

WAIT_S = 60.0


def stub(caller: Caller) -> settlement_pb2_grpc.SettlementServiceStub:
    return settlement_pb2_grpc.SettlementServiceStub(caller.channel)


async def head(core: Core) -> int:
    return await core.database.fetchval("SELECT sequence_events(10000)")


async def until_rolled_up(core: Core, sequence: int) -> None:
    statement = "SELECT through_sequence FROM position_watermark"
    async with asyncio.timeout(WAIT_S):
        while await core.database.fetchval(statement) < sequence:  # noqa: ASYNC110 - a row, not an event
            await asyncio.sleep(0.1)


async def events_after(caller: Caller, sequence: int) -> AsyncIterator[pb.Event]:
    call = stub(caller).SubscribeEvents(pb.SubscribeEventsRequest(after_sequence=sequence), timeout=WAIT_S)
    async for message in call:
        for event in message.events:
            yield event


async def test_card_status_and_money_are_events_within_a_second(core: Core, bank: Caller) -> None:
    card, after = core.card(), await head(core)
    async with contextlib.aclosing(events_after(bank, after)) as events:
        request = purchase(card)
        answer = await bank.authorize(request)
        committed_s = time.monotonic()
        event = await anext(events)
        assert time.monotonic() - committed_s < 1
        assert (event.rrn, event.request_id, event.kind) == (
            answer.rrn,
            request.request_id,
            pb.EVENT_KIND_PURCHASE,
        )
        assert (event.response_code, event.approved_minor, event.card_id) == ("00", 100, 0)
        assert event.business_date == answer.business_date
        report = loss_report(card)
        await bank.cards.ReportLoss(report, timeout=WAIT_S)
        committed_s = time.monotonic()
        event = await anext(events)
        assert time.monotonic() - committed_s < 1
        assert (event.kind, event.request_id) == (pb.EVENT_KIND_REPORT_LOSS, report.request_id)
        await bank.cards.LiftLoss(loss_lift(card), timeout=WAIT_S)
        assert (await anext(events)).kind == pb.EVENT_KIND_LIFT_LOSS
        issue = card_issue(core.unissued_card())
        await bank.cards.IssueCard(issue, timeout=WAIT_S)
        event = await anext(events)
        assert (event.kind, event.request_id) == (pb.EVENT_KIND_ISSUE_CARD, issue.request_id)


async def test_position_moves_with_a_purchase_and_is_rolled_up_by_the_housekeeper(
    core: Core, bank: Caller
) -> None:
    answer = await bank.authorize(purchase(core.card(), 700))
    request = pb.GetSettlementPositionRequest(business_date=answer.business_date)
    await head(core)
    before = (await stub(bank).GetSettlementPosition(request, timeout=WAIT_S)).positions[0]
    await bank.authorize(purchase(core.card(), 300))
    await head(core)
    after = (await stub(bank).GetSettlementPosition(request, timeout=WAIT_S)).positions[0]
    assert after.credit_minor >= before.credit_minor + 300
    last = await head(core)
    await until_rolled_up(core, last)
    assert (await reconcile(core.dsn)).clean


def housekeepers(instance: Instance) -> list[psutil.Process]:
    """The instance's housekeeper; none while it is started again."""
    found = []
    for process in psutil.Process(instance.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "server.housekeeper" in process.cmdline():
                found.append(process)
    return found


async def test_killed_housekeeper_delays_no_event_and_rolls_up_afterwards(
    core: Core, core_instance: Instance, bank: Caller
) -> None:
    after, killed = await head(core), set()
    async with contextlib.aclosing(events_after(bank, after)) as events:
        async with asyncio.timeout(60):
            while len(killed) < 3:
                for process in housekeepers(core_instance):
                    killed.add(process.pid)
                    process.kill()
                answer = await bank.authorize(purchase(core.card()))
                committed_s = time.monotonic()
                assert (await anext(events)).rrn == answer.rrn
                assert time.monotonic() - committed_s < 1
                await asyncio.sleep(0.1)
    last = await head(core)
    await until_rolled_up(core, last)
    assert (await reconcile(core.dsn)).clean


async def test_housekeeper_does_all_of_settlements_jobs(core: Core) -> None:
    address = f"http://127.0.0.1:{core.facts['metrics_port']}/metrics"

    def page() -> str:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return str(answer.read(), "ascii")

    text = await asyncio.to_thread(page)
    for job in ("sequence_events", "sequence_stragglers", "roll_up_positions", "close_days"):
        assert f'onecard_housekeeping_jobs_total{{job="{job}",outcome="succeeded"}}' in text
        assert f'job="{job}",outcome="failed"' not in text


@pytest.mark.parametrize("rpc_class", ["settlement_events", "settlement_position", "settlement_closing"])
async def test_each_rpc_needs_its_grant(core: Core, rpc_class: str) -> None:
    service = stub(core.caller(without(rpc_class)))
    calls = {
        "settlement_events": [service.SubscribeEvents(pb.SubscribeEventsRequest(), timeout=WAIT_S).read],
        "settlement_position": [
            lambda: service.GetSettlementPosition(pb.GetSettlementPositionRequest(), timeout=WAIT_S)
        ],
        "settlement_closing": [
            lambda: service.ListClosings(pb.ListClosingsRequest(), timeout=WAIT_S),
            service.DownloadClosing(pb.DownloadClosingRequest(), timeout=WAIT_S).read,
        ],
    }
    for call in calls[rpc_class]:
        refusal = await refusal_of(call())
        assert (refusal.code.name, refusal.reason) == ("PERMISSION_DENIED", "RPC_CLASS_NOT_GRANTED")
