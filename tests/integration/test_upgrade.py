"""A database of the release before, with cards in use, brought up to this one."""

import uuid
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from server.authorization.usage import Usage
from server.database import migrate
from server.engine.request_log import switch_key
from server.rulebook.rules import Channel

OPERATION = """
    INSERT INTO operations (operation_id, request_id, card_id, amount_minor, decided_at, business_date, stan, shard,
        operation_kind, mti_class, reason, participant_id, terminal_id, response_code, request_digest, response)
    VALUES ($1::bigint, $2, 1, $3, now() + $1::bigint * interval '1 ms', $4, $5, 0,
        1, $6, 1, 'bank-01', $7, '00', 'd', 'r')"""
# A backslash and what is not ASCII are legal in a terminal's name.
TERMINALS = ("T1", "T\\1", "终端1")


async def _used(connection: asyncpg.Connection, today: date) -> None:
    await connection.execute(
        "INSERT INTO card_states (card_id, shard, status, transaction_amount_max_minor, day_amount_max_minor, day,"
        " day_amount_minor) VALUES (1, 0, 2, 1, 1, $1, 1700), (2, 0, 2, 1, 1, $1, 0)",
        today,
    )
    for number, terminal_id in enumerate(TERMINALS, start=1):
        await connection.execute(OPERATION, number, uuid.uuid4(), 500, today, 7, 2, terminal_id)
        await connection.execute("INSERT INTO postings VALUES ($1, 1000001, 1, 500, $2, 1, 0)", number, today)
    # One without money, as of an identity that was asked for.
    await connection.execute(OPERATION, 10_001, uuid.uuid4(), None, today, None, None, "T1")


async def test_cards_in_use_keep_limits_switch_keys_and_places(empty_database: str, tmp_path: Path) -> None:
    for migration in migrate.read_migrations()[:2]:
        (tmp_path / migration.name).write_text(migration.sql, encoding="utf-8")
    connection = await asyncpg.connect(empty_database)
    await migrate.migrate(connection, tmp_path)
    today = await connection.fetchval("SELECT (now() AT TIME ZONE 'Asia/Shanghai')::date")
    await _used(connection, today)

    await migrate.migrate(connection)

    usages: dict[int, Any] = dict(await connection.fetch("SELECT card_id, usage FROM card_states"))
    usage = Usage(usages[1], today)
    assert (usage.of(Channel.CHIP), usage.day_amount_minor) == ((1, 1, 1700, 1700), 1700)
    assert usage.pack() == usages[1]
    assert usages[2] == b""
    keys: dict[int, Any] = dict(await connection.fetch("SELECT operation_id, switch_key FROM operations"))
    expected = {
        number: switch_key("bank-01", stan=7, mti_class=2, terminal_id=terminal_id)
        for number, terminal_id in enumerate(TERMINALS, start=1)
    }
    assert keys == expected | {10_001: None}
    assert await connection.fetchval("SELECT sequence_events(10)") == len(keys)
    batches = await connection.fetch(
        "SELECT first_operation_id, operation_count, sequence FROM event_batches ORDER BY sequence"
    )
    assert [tuple(row) for row in batches] == [(1, 1, 1), (2, 1, 2), (3, 1, 3), (10_001, 1, 4)]
    await connection.close()


async def test_numbering_of_events_does_not_wait_for_an_approval_of_rules(empty_database: str) -> None:
    connection, approver = [await asyncpg.connect(empty_database) for _ in range(2)]
    await migrate.migrate(connection)
    await connection.execute(
        "INSERT INTO event_batches VALUES (1, 3, 3, (now() AT TIME ZONE 'Asia/Shanghai')::date, now(), 0)"
    )
    async with approver.transaction():
        await approver.execute(
            (Path(migrate.__file__).parents[1] / "rulebook" / "sql" / "lock_approvals.sql").read_text()
        )
        assert await connection.fetchval("SELECT sequence_events(10)") == 3
    for one in (connection, approver):
        await one.close()
