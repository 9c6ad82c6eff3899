"""Positions: every posting once, whoever rolls up, and the same with what is not rolled up yet."""

import asyncio
import datetime
import random

import pytest
from onecard.v1 import settlement_pb2 as pb
from settlement_site import PURCHASE, Move, Site

from clients.errors import MalformedRequestError, NotAllowedError, NotFoundError
from server.settlement import positions
from server.settlement.positions import accounts_of, read_position, roll_up_step
from server.settlement.sequencer import BATCHES_MAX

BY_POSTINGS = (
    "SELECT account_id, business_date, sum(debit)::bigint AS debit_minor, sum(credit)::bigint AS credit_minor,"
    " count(*) AS posting_count FROM postings AS p CROSS JOIN LATERAL (VALUES (p.debit_account_id, p.amount_minor, 0),"
    " (p.credit_account_id, 0, p.amount_minor)) AS side (account_id, debit, credit)"
    " WHERE account_id < 1000000 GROUP BY 1, 2 ORDER BY 1, 2"
)
ROLLED_UP = "SELECT * FROM settlement_positions ORDER BY account_id, business_date"


async def number(site: Site) -> int:
    return await site.database.fetchval("SELECT sequence_events($1)", BATCHES_MAX)


async def test_positions_are_the_postings_while_two_roll_up_and_writers_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "BATCHES_PER_STEP", 3)
    lanes = [await site.lane() for _ in range(3)]
    hands = [await site.lane() for _ in range(2)]
    today = datetime.datetime.now(datetime.UTC).date()

    async def write(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(40):
            await lanes[seed].write(
                [
                    Move(card_id=2, amount_minor=draw.randint(5, 9)),
                    Move(card_id=4, participant_id="bank-02"),
                    Move(card_id=2, kind=PURCHASE, amount_minor=draw.randint(1, 4)),
                ],
                business_date=today - datetime.timedelta(days=draw.choice([0, 1])),
                rolls_back=draw.random() < 0.2,
            )

    writing = asyncio.gather(*(write(seed) for seed in range(3)))

    async def roll(hand: int) -> None:
        while not writing.done():
            await number(site) if hand == 0 else await asyncio.sleep(0)
            await roll_up_step(hands[hand].connection)

    await asyncio.gather(writing, roll(0), roll(1))
    await number(site)
    while await roll_up_step(hands[0].connection):
        pass
    expected = await site.database.fetch(BY_POSTINGS)
    assert await site.database.fetch(ROLLED_UP) == expected
    assert len(expected) == 4


async def test_roll_up_that_is_cut_off_adds_nothing_and_is_done_again(site: Site) -> None:
    lane, hand = await site.lane(), await site.lane()
    await lane.write([Move(card_id=2, amount_minor=70)])
    await number(site)
    transaction = hand.connection.transaction()
    await transaction.start()
    await roll_up_step(hand.connection)
    assert await site.database.fetch(ROLLED_UP) == []
    hand.connection.terminate()
    assert await roll_up_step(lane.connection) == 1
    assert await roll_up_step(lane.connection) == 0
    assert await site.database.fetch(ROLLED_UP) == await site.database.fetch(BY_POSTINGS)


async def test_rolling_up_waits_for_no_card(site: Site) -> None:
    lane, holder, hand = await site.lane(), await site.lane(), await site.lane()
    await lane.write([Move(card_id=2)])
    held = asyncio.create_task(holder.write([Move(card_id=2)], delay_s=1))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(0.5):
        assert await number(site) == 1
        assert await roll_up_step(hand.connection) == 1
    assert not held.done()
    await held


async def test_position_is_the_same_before_and_after_it_is_rolled_up(site: Site) -> None:
    lane = await site.lane()
    today = datetime.datetime.now(datetime.UTC).date()
    own = site.accounts["bank-01"]
    await lane.write([Move(card_id=2, amount_minor=1000)], business_date=today - datetime.timedelta(days=1))
    # A part of it comes from the suspense account.
    parts = [(own, 1_000_002, 30), (400_000 + own, 1_000_002, 20)]
    await lane.write([Move(card_id=2, amount_minor=50, postings=parts)], business_date=today)
    await number(site)
    accounts = list(accounts_of(own))
    before = await read_position(site.database, accounts, today)
    assert [(p.opening_minor, p.debit_minor, p.closing_minor) for p in before.positions] == [
        (-1000, 30, -1030),
        (0, 20, -20),
        (0, 0, 0),
    ]
    assert (before.through_sequence, before.is_closed) == (2, False)
    assert await roll_up_step(lane.connection) == 2
    assert await read_position(site.database, accounts, today) == before


async def test_participant_asks_for_its_own_position_and_an_operator_for_any(site: Site) -> None:
    await asyncio.to_thread(site.start_worker)
    lane = await site.lane()
    ((written),) = await lane.write([Move(card_id=2, amount_minor=300, kind=PURCHASE, postings=())])
    await lane.write(
        [Move(card_id=4, amount_minor=40), Move(card_id=4, amount_minor=2, participant_id="bank-02")]
    )
    await number(site)
    today = f"{written.business_date:%Y%m%d}"
    async with site.client("bank-01") as bank, site.client("operator-01") as operator:
        request = pb.GetSettlementPositionRequest(business_date=today)
        answer = await bank.get_settlement_position(request)
        assert answer.positions[0] == pb.SettlementPosition(
            account=pb.SETTLEMENT_ACCOUNT_SETTLEMENT, debit_minor=40, closing_minor=-40, posting_count=1
        )
        assert [position.account for position in answer.positions] == [1, 2, 3]
        assert answer.through_sequence == 3
        request.participant = "bank-02"
        assert (await operator.get_settlement_position(request)).positions[0].debit_minor == 2
        with pytest.raises(NotAllowedError, match="OPERATOR_ONLY"):
            await bank.get_settlement_position(request)
        with pytest.raises(MalformedRequestError, match="business_date"):
            await bank.get_settlement_position(pb.GetSettlementPositionRequest(business_date="20261301"))
        request.participant = "../bank-02"
        with pytest.raises(MalformedRequestError, match="participant"):
            await operator.get_settlement_position(request)
        request.participant = "nobody"
        with pytest.raises(NotFoundError, match="PARTICIPANT_UNKNOWN"):
            await operator.get_settlement_position(request)
