"""Rules put in force for as long as a test needs them; afterwards the rule that was there is in force again."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core_under_test import Core

_CURRENT = (
    "SELECT content::text FROM rule_changes WHERE rule_kind = $1 AND subject = $2 AND state = 'APPROVED'"
    " ORDER BY version DESC LIMIT 1"
)
_APPROVE = (
    "INSERT INTO rule_changes (change_id, rule_kind, subject, content, state, justification, proposed_by, decided_by,"
    " decided_at, version) SELECT gen_random_uuid(), $1, $2, $3::jsonb, 'APPROVED', 'test', 'test', 'test-too',"
    " clock_timestamp(), (SELECT max(version) + 1 FROM rule_changes)"
)
# What a subject without a rule is like.
_NOTHING: dict[str, dict[str, Any]] = {"limit": {}, "merchant": {}, "terminal": {}, "acceptance": {}}


async def put_rule(core: Core, kind: str, subject: str, content: dict[str, Any]) -> None:
    """In force for every operation that is decided from now on."""
    await core.database.execute(_APPROVE, kind, subject, json.dumps(content))


@asynccontextmanager
async def rule(core: Core, kind: str, subject: str, **content: Any) -> AsyncIterator[None]:
    """The rule says ``content`` and nothing else within the block."""
    before = await core.database.fetchval(_CURRENT, kind, subject)
    await put_rule(core, kind, subject, content)
    try:
        yield
    finally:
        await put_rule(core, kind, subject, _NOTHING[kind] if before is None else json.loads(before))
