"""Rows of changes of rules. Every function takes a connection; ``transaction`` gives one."""

from dataclasses import dataclass
from typing import Any

import asyncpg

from server.database.statements import load
from server.errors import NotFoundError, RequestIdReusedError
from server.rulebook.lifecycle import Change, ChangeState, UsedRequest
from server.rulebook.proposal import ProposedRules

STATEMENTS = load("server.rulebook")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleInForce:
    """A rule as it is written; ``content`` is JSON."""

    subject: str
    content: str
    version: int
    change_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedRule:
    """A rule of a change, and what was in force before it; None: nothing."""

    subject: str
    content: str
    content_before: str | None


async def find_request(connection: Any, request_id: str) -> UsedRequest | None:
    """What a request id was used for."""
    row = await connection.fetchrow(STATEMENTS["find_request"], request_id)
    if row is None:
        return None
    return UsedRequest(
        change_id=str(row["change_id"]),
        part_number=row["part_number"],
        state=None if row["state"] is None else ChangeState(row["state"]),
        decided_by=row["decided_by"],
    )


async def insert_change(
    connection: Any, *, change_id: str, kind: str, rule_count: int, justification: str, participant_id: str
) -> bool:
    """Adds a proposal without its rules; False when its id is taken."""
    number = await connection.fetchval(
        STATEMENTS["insert_change"], change_id, kind, rule_count, justification, participant_id
    )
    return number is not None


async def insert_rules(
    connection: Any, rules: ProposedRules, *, request_id: str, change_id: str, kind: str
) -> int:
    """Adds the rules of one request to a change that the caller holds; its part's number.

    Raises:
        RequestIdReusedError: the id came with a part of another change at the same time.
    """
    try:
        part_number = await connection.fetchval(STATEMENTS["insert_part"], request_id, change_id)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "rule_change_parts_pkey":
            raise
        raise RequestIdReusedError("call") from None
    await connection.execute(
        STATEMENTS["insert_lines"],
        change_id,
        kind,
        part_number,
        rules.subjects,
        rules.content_texts(),
        [place + 1 for place in rules.places],
    )
    return int(part_number)


async def lock_change(connection: Any, change_id: str) -> Change:
    """Locks a change.

    Raises:
        NotFoundError: there is none of this id.
    """
    return _found(await connection.fetchrow(STATEMENTS["lock_change"], change_id))


async def read_change(connection: Any, change_id: str) -> Change:
    """Reads a change.

    Raises:
        NotFoundError: there is none of this id.
    """
    return _found(await connection.fetchrow(STATEMENTS["read_change"], change_id))


async def count_rules(connection: Any, change_id: str, *, part_max: int | None = None) -> int:
    """Rules that a change has, or had when ``part_max`` had come."""
    return int(await connection.fetchval(STATEMENTS["count_lines"], change_id, part_max))


async def read_part(connection: Any, change_id: str, part_number: int) -> dict[str, str]:
    """What one request brought: JSON texts by subject."""
    return dict(await connection.fetch(STATEMENTS["read_part"], change_id, part_number))


async def has_rule_for_any(connection: Any, change_id: str, subjects: list[str]) -> bool:
    """Whether a change has a rule for one of the subjects."""
    return await connection.fetchval(STATEMENTS["find_repeated"], change_id, subjects) is not None


async def unknown_participants(connection: Any, participant_ids: set[str]) -> set[str]:
    """Those that there are none of."""
    rows = await connection.fetch(STATEMENTS["find_participants"], list(participant_ids))
    return participant_ids - {row["participant_id"] for row in rows}


async def lock_approvals(connection: Any) -> None:
    """Waits until no other approval is under way, and keeps others waiting."""
    await connection.execute(STATEMENTS["lock_approvals"])


async def is_outdated(connection: Any, change: Change) -> bool:
    """Whether a rule for one of its subjects was approved after it was proposed; under the lock of approvals."""
    subject = await connection.fetchval(
        STATEMENTS["find_newer"], change.change_id, change.base_version, change.kind
    )
    return subject is not None


async def decide(
    connection: Any, change: Change, state: ChangeState, *, participant_id: str, request_id: str
) -> Change:
    """Decides a change that the caller holds and that waits; as it is then.

    Raises:
        RequestIdReusedError: the id came with a decision of another change at the same time.
    """
    try:
        row = await connection.fetchrow(
            STATEMENTS["decide_change"], change.change_id, state.value, participant_id, request_id
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "rule_changes_decision_key":
            raise
        raise RequestIdReusedError("change_id") from None
    assert row is not None, "a change is decided once, under its lock"
    return _change(row)


async def list_rules(
    connection: Any, *, kind: str, subject_prefix: str, after: str, rows_max: int
) -> list[RuleInForce]:
    """A page of rules in force, by subject."""
    rows = await connection.fetch(STATEMENTS["list_rules"], kind, subject_prefix, after, rows_max)
    return [RuleInForce(**dict(row) | {"change_id": str(row["change_id"])}) for row in rows]


async def list_change_rules(
    connection: Any, change: Change, *, after: str, rows_max: int
) -> list[ChangedRule]:
    """A page of a change's rules, by subject."""
    rows = await connection.fetch(
        STATEMENTS["list_change_rules"], change.change_id, change.version, after, rows_max
    )
    return [ChangedRule(**dict(row)) for row in rows]


async def list_changes(
    connection: Any, *, kind: str, subject: str, only_proposed: bool, below: int | None, rows_max: int
) -> list[Change]:
    """A page of changes, the latest first; kind and subject may be empty."""
    rows = await connection.fetch(STATEMENTS["list_changes"], kind, subject, only_proposed, below, rows_max)
    return [_change(row) for row in rows]


def _found(row: Any) -> Change:
    if row is None:
        raise NotFoundError("RULE_CHANGE_UNKNOWN", "no such change", field="change_id")
    return _change(row)


def _change(row: Any) -> Change:
    columns = dict(row)
    return Change(
        **columns
        | {
            "change_id": str(columns["change_id"]),
            "kind": columns.pop("rule_kind"),
            "state": ChangeState(columns["state"]),
        }
    )
