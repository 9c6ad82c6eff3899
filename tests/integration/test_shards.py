"""Several shards: their number is fixed with the database, and no limit of one outcome ends at a shard's border."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from core_under_test import (
    CALL_S,
    Caller,
    Core,
    Refusal,
    card_issue,
    loss_report,
    new_id,
    open_directory,
    purchase,
    purpose,
    refusal_of,
)
from entry_requests import by_code, by_token, new_token, payment_code, register, revoke
from money_requests import approved, by_request_id, by_rrn, by_stan, decision, reversal, transfer
from onecard.v1 import card_authentication_pb2, common_pb2
from pin_calls import issue, tries, unblock, verify
from pin_pad import WRONG, PinPad
from rules_in_force import rule
from running_instance import Instance
from virtual_card import VirtualCard

from server.database import facts, migrate
from server.database.embedded import (
    LOCKS_PER_TRANSACTION_MAX,
    LOCKS_PER_TRANSACTION_MIN,
    locks_per_transaction,
)
from server.engine.transaction import CAREFUL_S
from server.errors import ConfigurationError
from server.settings import socket_dsn

SHARDS = 4
CARDS = 400
RACES = 30
SHARD_OF = "SELECT shard FROM card_states WHERE card_id = $1"

Serve = Callable[..., Instance]


@pytest_asyncio.fixture(scope="module")
async def sharded() -> AsyncIterator[Core]:
    """Two workers on a database of four shards, whatever the other cores of this run have."""
    root = open_directory("onecard-shards-")
    instance = Instance(root / "data", "--shards", str(SHARDS), workers=2)
    started = await asyncio.to_thread(instance.until_ready)
    core = Core(data_dir=root / "data", facts=started, dsn=socket_dsn(Path(started["socket_dir"])))
    await core.open(cards=CARDS)
    yield core
    await core.close()
    await asyncio.to_thread(instance.close)
    shutil.rmtree(root, ignore_errors=True)


async def shard_of(core: Core, card: VirtualCard) -> int:
    return await core.database.fetchval(SHARD_OF, await core.card_id(card))


async def cards_of_two_shards(core: Core) -> tuple[VirtualCard, VirtualCard]:
    first = core.card()
    shard = await shard_of(core, first)
    while await shard_of(core, second := core.card()) == shard:
        pass
    return first, second


def refused(instance: Instance) -> str:
    """The one line of an instance that must not start."""
    assert instance.exit_code() == 2, instance.errors()
    (line,) = [line for line in instance.errors().splitlines() if not line.startswith("{")]
    return line


def test_number_is_fixed_at_the_first_start_and_may_be_left_out_later(serve: Serve) -> None:
    first = serve("--shards", "3")
    assert first.until_ready()["shards"] == 3
    assert first.stop() == 0
    assert refused(serve("--shards", "2")) == (
        "onecard: shards is 2, but this database was made with 3: the number never changes, leave it out"
    )
    assert refused(serve("--shards", "0", "--business-day-cutoff", "22:00")) == (
        "onecard: business_day_cutoff is 22:00, but this database was made with 23:00: it never changes, give that one"
    )
    assert serve("--shards", "0").until_ready()["shards"] == 3


async def test_new_database_has_one_shard_unless_told_otherwise(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    await migrate.migrate(connection)
    assert await facts.settle_shards(connection, asked=0) == 1
    with pytest.raises(ConfigurationError, match="shards is 4"):
        await facts.settle_shards(connection, asked=4)
    await connection.close()


async def test_database_with_cards_from_before_has_one_shard(empty_database: str, tmp_path: Path) -> None:
    for migration in migrate.read_migrations()[:2]:
        (tmp_path / migration.name).write_text(migration.sql)
    connection = await asyncpg.connect(empty_database)
    await migrate.migrate(connection, tmp_path)
    await connection.execute(
        "INSERT INTO card_states (card_id, shard, status, transaction_amount_max_minor, day_amount_max_minor)"
        " VALUES (1, 0, 2, 1, 1)"
    )
    await migrate.migrate(connection)
    with pytest.raises(ConfigurationError, match="was made with 1"):
        await facts.settle_shards(connection, asked=4)
    await connection.close()


async def test_of_two_first_instances_one_fixes_the_number(empty_database: str) -> None:
    connections = [await asyncpg.connect(empty_database) for _ in range(2)]
    await migrate.migrate(connections[0])
    settled = await asyncio.gather(
        facts.settle_shards(connections[0], asked=2),
        facts.settle_shards(connections[1], asked=4),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in settled) == ["ConfigurationError", "int"]
    for connection in connections:
        await connection.close()


async def test_cards_lie_in_all_shards_and_new_ones_where_their_pan_says(sharded: Core) -> None:
    rows = await sharded.database.fetch("SELECT shard, count(*) FROM card_states GROUP BY shard")
    assert {row["shard"] for row in rows} == set(range(SHARDS))
    assert all(row["count"] > CARDS / SHARDS / 2 for row in rows)
    caller = sharded.caller()
    issued = [sharded.unissued_card() for _ in range(12)]
    index = sharded.store.blind_index(sharded.store.active("blind-index"))
    for card in issued:
        await caller.cards.IssueCard(card_issue(card), timeout=CALL_S)
        expected = int.from_bytes(index.of(card.pan, kind="pan")[:4]) % SHARDS
        assert await shard_of(sharded, card) == expected
        status = await caller.cards.ReportLoss(loss_report(card), timeout=CALL_S)
        assert status.status


async def test_challenge_with_cards_of_two_shards_at_once_serves_one(sharded: Core) -> None:
    callers = [sharded.caller() for _ in range(2)]
    for _ in range(RACES):
        cards = await cards_of_two_shards(sharded)
        challenge = await callers[0].challenge()
        answers = await asyncio.gather(
            *(_authenticate(c, card, challenge) for c, card in zip(callers, cards, strict=True))
        )
        assert Counter(answers) == {"AUTHENTIC": 1, "CHALLENGE_USED": 1}
        # And later, with either card.
        assert {await _authenticate(callers[0], card, challenge) for card in cards} == {"CHALLENGE_USED"}
    rows = await sharded.database.fetch("SELECT token_digest, shard FROM spent_tokens")
    assert len(rows) == RACES
    assert all(row["shard"] == row["token_digest"][0] % SHARDS for row in rows)


async def _authenticate(caller: Caller, card: VirtualCard, challenge: Any) -> str:
    request = card_authentication_pb2.AuthenticateCardRequest(
        request_id=new_id(), answer=card.answer(challenge), **purpose("identity.counter")
    )
    answer = await caller.authentication.AuthenticateCard(request, timeout=CALL_S)
    name = card_authentication_pb2.CardAuthenticationReason.Name(answer.reason)
    return name.removeprefix("CARD_AUTHENTICATION_REASON_")


async def test_request_id_with_cards_of_two_shards_at_once_has_one_outcome(sharded: Core) -> None:
    callers = [sharded.caller() for _ in range(2)]
    for _ in range(RACES):
        request_id = new_id()
        pair = await cards_of_two_shards(sharded)
        outcomes = await asyncio.gather(
            *(_report_loss(c, card, request_id) for c, card in zip(callers, pair, strict=True))
        )
        assert Counter(outcomes) == {"lost": 1, "REQUEST_ID_REUSED": 1}
        assert await sharded.stored(request_id) == 1


async def _report_loss(caller: Caller, card: VirtualCard, request_id: str) -> str:
    request = loss_report(card, request_id=request_id, card=common_pb2.CardReference(pan=card.pan))
    try:
        await caller.cards.ReportLoss(request, timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        return Refusal.of(error).reason
    return "lost"


async def test_token_wanted_for_cards_of_two_shards_at_once_names_one_of_them(sharded: Core) -> None:
    callers = [sharded.caller() for _ in range(2)]
    for _ in range(RACES // 2):
        pair, token = await cards_of_two_shards(sharded), new_token()
        outcomes = await asyncio.gather(
            *(_register(c, card, token) for c, card in zip(callers, pair, strict=True))
        )
        assert Counter(outcomes) == {"named": 1, "CARD_TOKEN_TAKEN": 1}
        named = pair[outcomes.index("named")]
        before = await sharded.balance_minor(named)
        assert (await callers[0].authorize(by_token(token, 7))).response_code == "00"
        assert await sharded.balance_minor(named) == before - 7
        await revoke(callers[1], token)
        assert (await callers[0].authorize(by_token(token, 7))).response_code == "14"


async def _register(caller: Caller, card: VirtualCard, token: str) -> str:
    try:
        await register(caller, card, token)
    except grpc.aio.AioRpcError as error:
        return Refusal.of(error).reason
    return "named"


async def test_pins_and_codes_of_cards_in_different_shards_in_one_frame(sharded: Core) -> None:
    """Transfers both ways lock two shards at once, and both cards' PINs are written."""
    bank, pad = sharded.caller(), PinPad(sharded.store)
    for _ in range(5):
        first, second = await cards_of_two_shards(sharded)
        pins = []
        for card in (first, second):
            issued = await issue(bank, pad, card)
            pins.append(pad.opened(issued.pin_block, card.pan))
            assert (await verify(bank, pad, card, WRONG))[1] == "WRONG_PIN"
            await unblock(bank, pad, card)
        codes = [await payment_code(bank, card) for card in (first, second)]
        operations = [
            transfer(first, second, 10, pin=pad.pin(pins[0], first.pan)),
            transfer(second, first, 10, pin=pad.pin(pins[1], second.pan)),
            transfer(first, second, 10, pin=pad.pin(WRONG, first.pan)),
            *(by_code(code, 10) for code in codes),
            *(by_code(code, 10) for code in codes),
        ]
        (frame,) = await bank.frames(operations)
        decisions = [decision(result.response)[1] for result in frame.results]
        assert decisions[:3] == ["APPROVED", "APPROVED", "WRONG_PIN"]
        for code in range(2):
            assert Counter(decisions[3 + code :: 2]) == {"APPROVED": 1, "CARD_CODE_USED": 1}
        for card, tries_of_card in ((first, 1), (second, 0)):
            assert await tries(sharded, card) == tries_of_card
            unblocks = "SELECT unblocks FROM card_pins WHERE card_id = $1"
            assert await sharded.database.fetchval(unblocks, await sharded.card_id(card)) == 0


def test_lock_table_has_room_for_the_claims_of_every_lane() -> None:
    assert locks_per_transaction(connections_max=60, claims_max=0) == LOCKS_PER_TRANSACTION_MIN
    assert locks_per_transaction(connections_max=60, claims_max=61) == LOCKS_PER_TRANSACTION_MIN + 2
    assert locks_per_transaction(connections_max=60, claims_max=10**9) == LOCKS_PER_TRANSACTION_MAX


async def test_transfer_finds_what_came_before_in_the_shard_of_the_other_card(sharded: Core) -> None:
    caller = sharded.caller()
    async with rule(sharded, "limit", "transfer"):
        for _ in range(4):
            first, second = await cards_of_two_shards(sharded)
            bought = purchase(second, 100)
            await approved(caller, bought)
            # Until nothing is looked for before it is decided: unique indexes end at a shard's border.
            await asyncio.sleep(CAREFUL_S + 0.1)
            repeated = transfer(first, second, 100, stan=bought.stan)
            assert decision(await caller.authorize(repeated)) == ("94", "DUPLICATE_TRANSMISSION")
            await asyncio.sleep(CAREFUL_S + 0.1)
            reused = transfer(first, second, 100, request_id=bought.request_id)
            assert (await refusal_of(caller.authorize(reused))).reason == "REQUEST_ID_REUSED"
            assert await sharded.stored(bought.request_id) == 1


async def test_reversal_with_a_card_of_another_shard_finds_the_original_and_keeps_no_place(
    sharded: Core,
) -> None:
    caller = sharded.caller()
    for _ in range(4):
        first, second = await cards_of_two_shards(sharded)
        bought = purchase(second, 100)
        response = await approved(caller, bought)
        for reference in (by_request_id(bought), by_rrn(response), by_stan(bought)):
            undo = reversal(first, bought, original=reference)
            assert decision(await caller.authorize(undo)) == ("25", "ORIGINAL_NOT_FOUND")
        assert await caller.authorize(bought) == response
