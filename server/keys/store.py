"""Rows of key changes, their components and the audit. Must never read or write a component that is not sealed."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from crypto.keys import KeyInfo
from server.database.pool import acquired
from server.database.statements import load
from server.errors import DatabaseUnavailableError, RequestIdReusedError
from server.keys.rules import PROPOSAL_LIFE, Change, ChangeKind, ChangeState, Proposal, Step

STATEMENTS = load("server.keys")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SubmittedComponent:
    """A component as it is kept; ``sealed`` is None once the change is decided."""

    number: int
    participant_id: str
    request_id: str
    sealed: bytes | None
    kcv: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A step in the life of keys."""

    entry_id: int
    recorded_at: datetime
    step: str
    participant_id: str
    change_id: str
    key_name: str
    key_version: int
    detail: str


@contextlib.asynccontextmanager
async def transaction(pool: "asyncpg.Pool[Any]") -> AsyncIterator[Any]:
    """A connection in a transaction of its own.

    Raises:
        DatabaseUnavailableError: the database does not answer, or somebody holds a row for too long.
    """
    try:
        async with acquired(pool) as connection, connection.transaction():
            yield connection
    except asyncpg.QueryCanceledError as error:
        raise DatabaseUnavailableError from error


async def insert_change(
    connection: Any,
    proposal: Proposal,
    *,
    change_id: str,
    justification: str,
    request: bytes,
    participant_id: str,
) -> bool:
    """Adds a proposal; False when its id is taken."""
    number = await connection.fetchval(
        STATEMENTS["insert_change"],
        change_id,
        proposal.kind.value,
        proposal.key.name,
        proposal.key.version,
        proposal.components,
        justification,
        request,
        participant_id,
    )
    return number is not None


async def lock_change(connection: Any, change_id: str) -> tuple[Change | None, list[SubmittedComponent]]:
    """Locks a change and reads its components; None when there is no such change."""
    row = await connection.fetchrow(STATEMENTS["lock_change"], change_id)
    if row is None:
        return None, []
    components = [
        SubmittedComponent(
            number=number, participant_id=participant, request_id=str(request), sealed=sealed, kcv=kcv
        )
        for number, participant, request, sealed, kcv in await connection.fetch(
            STATEMENTS["read_components"], change_id
        )
    ]
    return _change(row, len(components)), components


async def change_of_component(connection: Any, request_id: str) -> str | None:
    """Id of the change that a component's request id was used for."""
    change_id = await connection.fetchval(STATEMENTS["read_component_of_request"], request_id)
    return None if change_id is None else str(change_id)


async def insert_component(connection: Any, change_id: str, component: SubmittedComponent) -> None:
    """Keeps a component; the caller holds the change's lock.

    Raises:
        RequestIdReusedError: a component of another change came under this request id at the same time.
    """
    try:
        await connection.execute(
            STATEMENTS["insert_component"],
            change_id,
            component.number,
            component.participant_id,
            component.request_id,
            component.sealed,
            component.kcv,
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "key_components_request_key":
            raise
        raise RequestIdReusedError("change_id") from None


async def decide(
    connection: Any, change: Change, state: ChangeState, *, participant_id: str, key_version: int
) -> None:
    """Decides a change that the caller holds, and drops its components."""
    decided_at = await connection.fetchval(
        STATEMENTS["decide_change"], change.change_id, state.value, participant_id, key_version
    )
    assert decided_at is not None, "a change is decided once, under its lock"
    if change.components_needed:
        await connection.execute(STATEMENTS["drop_components"], change.change_id)


async def write_audit(
    connection: Any,
    step: Step,
    *,
    participant_id: str,
    change_id: str | None,
    key_name: str,
    key_version: int,
    detail: str,
) -> None:
    """Adds a step to the audit."""
    await connection.execute(
        STATEMENTS["insert_audit"], step.value, participant_id, change_id, key_name, key_version, detail
    )


async def list_changes(
    connection: Any, *, only_proposed: bool, below: int | None, rows_max: int
) -> list[Change]:
    """A page of changes, the latest first."""
    rows = await connection.fetch(STATEMENTS["list_changes"], only_proposed, below, rows_max)
    return [_change(row, row["components_given"]) for row in rows]


async def list_audit(connection: Any, *, key_name: str, below: int | None, rows_max: int) -> list[AuditEntry]:
    """A page of the audit, the latest first."""
    rows = await connection.fetch(STATEMENTS["list_audit"], key_name, below, rows_max)
    return [AuditEntry(**dict(row) | {"change_id": str(row["change_id"] or "")}) for row in rows]


async def expire_changes(connection: Any, carried_out: Sequence[str]) -> int:
    """Ends the proposals that nobody decided in time, and says so in the audit."""
    hours = int(PROPOSAL_LIFE.total_seconds()) // 3600
    return len(await connection.fetch(STATEMENTS["expire_changes"], carried_out, hours))


async def record_destroyed(connection: Any, keys: Sequence[KeyInfo]) -> None:
    """Says in the audit which keys were destroyed, once for each."""
    await connection.execute(
        STATEMENTS["record_destroyed"],
        [key.name for key in keys],
        [key.version for key in keys],
        [key.kcv for key in keys],
    )


async def database_time_s(connection: Any) -> int:
    """Unix seconds by the database."""
    return int(await connection.fetchval(STATEMENTS["now"]))


def _change(row: Any, components_given: int) -> Change:
    return Change(
        change_id=str(row["change_id"]),
        change_number=row["change_number"],
        kind=ChangeKind(row["kind"]),
        key_name=row["key_name"],
        key_version=row["key_version"],
        components_needed=row["components_needed"],
        components_given=components_given,
        state=ChangeState(row["state"]),
        justification=row["justification"],
        request=row["request"],
        proposed_by=row["proposed_by"],
        proposed_at=row["proposed_at"],
        decided_by=row["decided_by"] or "",
        decided_at=row["decided_at"],
        now=row["now"],
    )
