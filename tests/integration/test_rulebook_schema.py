"""What the schema of rules refuses by itself, whoever writes."""

import asyncio
from typing import Any

import asyncpg
import pytest
from rules_in_force import put_approval, put_proposal

WAIT_S = 0.3


REFUSED = [
    ("UPDATE rule_changes SET justification = 'other' WHERE change_id = $1", "RestrictViolationError"),
    ("UPDATE rule_changes SET rule_count = 9 WHERE change_id = $1", "RestrictViolationError"),
    ("UPDATE rule_changes SET proposed_by = 'x' WHERE change_id = $1", "RestrictViolationError"),
    ("DELETE FROM rule_changes WHERE change_id = $1", "RestrictViolationError"),
    ("DELETE FROM rule_change_lines WHERE change_id = $1", "RestrictViolationError"),
    ("UPDATE rule_change_lines SET content = '{}' WHERE change_id = $1", "RestrictViolationError"),
    (
        "INSERT INTO rule_changes (change_id, rule_kind, rule_count, justification, proposed_by, state, decided_by,"
        " decided_at, decision_id, version) SELECT gen_random_uuid(), 'limit', 1, 'x', 'a', 'APPROVED', 'b', now(),"
        " $1, 99",
        "RestrictViolationError",
    ),
    (
        "UPDATE rule_changes SET state = 'APPROVED', decided_by = proposed_by, decided_at = now(),"
        " decision_id = gen_random_uuid() WHERE change_id = $1",
        "CheckViolationError",
    ),
    (
        "UPDATE rule_changes SET state = 'APPROVED', decided_at = now(), decision_id = gen_random_uuid()"
        " WHERE change_id = $1",
        "CheckViolationError",
    ),
    ("UPDATE rule_changes SET version = 99 WHERE change_id = $1", "CheckViolationError"),
    (
        "INSERT INTO rule_change_lines (change_id, rule_kind, part_number, subject, content)"
        " SELECT $1, 'limit', 1, 'chip', '{}'",
        "ForeignKeyViolationError",
    ),
    (
        "INSERT INTO rule_change_lines (change_id, rule_kind, part_number, subject, content)"
        " SELECT $1, 'terminal', 1, 'bank-a/T2', '[]'",
        "CheckViolationError",
    ),
]


async def test_the_schema_keeps_a_proposal_as_it_is_and_asks_for_two_persons(connections: list[Any]) -> None:
    database = connections[0]
    change_id = await put_proposal(database, "terminal", {"bank-a/T1": {}})
    for statement, error in REFUSED:
        with pytest.raises(getattr(asyncpg, error)):
            await database.execute(statement, change_id)


async def test_the_schema_keeps_what_was_decided(connections: list[Any]) -> None:
    database = connections[0]
    change_id = await put_proposal(database, "terminal", {"bank-a/T1": {}})
    await put_approval(database, change_id)
    for statement in (
        "UPDATE rule_changes SET state = 'REJECTED', version = NULL WHERE change_id = $1",
        "UPDATE rule_changes SET version = version + 1 WHERE change_id = $1",
        "INSERT INTO rule_change_lines (change_id, rule_kind, part_number, subject, content)"
        " VALUES ($1, 'terminal', 2, 'bank-a/T2', '{}')",
    ):
        with pytest.raises(asyncpg.RestrictViolationError):
            await database.execute(statement, change_id)
    with pytest.raises(asyncpg.RestrictViolationError):
        await database.execute("TRUNCATE rule_changes, rule_change_parts, rule_change_lines")


async def test_the_schema_approves_a_change_as_a_whole_only(connections: list[Any]) -> None:
    database = connections[0]
    change_id = await put_proposal(database, "terminal", {"bank-a/T1": {}})
    await database.execute(
        "INSERT INTO rule_change_lines (change_id, rule_kind, part_number, subject, content)"
        " VALUES ($1, 'terminal', 2, 'bank-a/T2', '{}')",
        change_id,
    )
    with pytest.raises(asyncpg.RestrictViolationError, match="as a whole"):
        await put_approval(database, change_id)


async def test_a_line_does_not_slip_in_beside_an_approval(connections: list[Any]) -> None:
    approver, late, _ = connections
    await late.execute("SET lock_timeout = 0")
    change_id = await put_proposal(approver, "terminal", {"bank-a/T1": {}})
    transaction = approver.transaction()
    await transaction.start()
    await put_approval(approver, change_id)
    adding = asyncio.create_task(
        late.execute(
            "INSERT INTO rule_change_lines (change_id, rule_kind, part_number, subject, content)"
            " VALUES ($1, 'terminal', 2, 'bank-a/T2', '{}')",
            change_id,
        )
    )
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(adding), WAIT_S)
    await transaction.commit()
    with pytest.raises(asyncpg.RestrictViolationError):
        await asyncio.wait_for(adding, 10)
