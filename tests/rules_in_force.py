"""Rules put in force past the service, for as long as a test needs them; then the rule that was there is again."""

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core_under_test import Core

_CURRENT = (
    "SELECT content::text FROM rule_change_lines JOIN rule_changes USING (change_id, rule_kind)"
    " WHERE rule_kind = $1 AND subject = $2 AND state = 'APPROVED' ORDER BY version DESC LIMIT 1"
)
# What a subject without a rule is like.
_NOTHING: dict[str, dict[str, Any]] = {"limit": {}, "merchant": {}, "terminal": {}, "acceptance": {}}


async def put_rule(core: Core, kind: str, subject: str, content: dict[str, Any]) -> None:
    """In force for every operation that is decided from now on."""
    await put_rules(core.database, kind, {subject: content})


@asynccontextmanager
async def rule(core: Core, kind: str, subject: str, **content: Any) -> AsyncIterator[None]:
    """The rule says ``content`` and nothing else within the block."""
    before = await core.database.fetchval(_CURRENT, kind, subject)
    await put_rule(core, kind, subject, content)
    try:
        yield
    finally:
        await put_rule(core, kind, subject, _NOTHING[kind] if before is None else json.loads(before))


async def put_proposal(
    connection: Any, kind: str, rules: dict[str, Any], *, rule_count: int = 0
) -> uuid.UUID:
    """Writes a proposal past the service: rules by subject, whatever they say; announced are those, or more."""
    change_id = uuid.uuid4()
    await connection.execute(
        "INSERT INTO rule_changes (change_id, rule_kind, rule_count, justification, proposed_by)"
        " VALUES ($1, $2, $3, 'test', 'test-a')",
        change_id,
        kind,
        rule_count or len(rules),
    )
    await connection.execute(
        "INSERT INTO rule_change_lines (change_id, rule_kind, part_number, subject, content)"
        " SELECT $1, $2, 1, * FROM unnest($3::text[], $4::jsonb[])",
        change_id,
        kind,
        list(rules),
        [json.dumps(content) for content in rules.values()],
    )
    return change_id


async def put_approval(connection: Any, change_id: uuid.UUID) -> int:
    """Approves a proposal past the service; its version."""
    return await connection.fetchval(
        "UPDATE rule_changes SET state = 'APPROVED', decided_by = 'test-b', decision_id = gen_random_uuid(),"
        " decided_at = clock_timestamp() WHERE change_id = $1 RETURNING version",
        change_id,
    )


async def put_rules(connection: Any, kind: str, rules: dict[str, Any]) -> int:
    """Puts rules in force past the service; their version."""
    return await put_approval(connection, await put_proposal(connection, kind, rules))
