"""Rows of key changes, their components and the audit. Must never read or write a component that is not sealed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from crypto.keys import KeyInfo
from server.cards.directory import AC_KEY_NAMES, SS_KEY_NAMES
from server.database.pool import ANSWER_DELAY_MAX_S, own_transaction
from server.database.statements import load
from server.errors import NotFoundError, RequestIdReusedError
from server.keys.rules import (
    FINISHING_DELAY,
    PIN_KEY_NAME,
    PROPOSAL_LIFE,
    Change,
    ChangeKind,
    ChangeState,
    Proposal,
    Step,
    key_in_use,
    wrong_change_state,
)
from server.keys.shapes import KeyName

STATEMENTS = load("server.keys")
# A look through all cards of a province.
SEARCH_MAX_S = 240


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SubmittedComponent:
    """A component as it is kept; ``sealed`` is None once the change has ended."""

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


async def insert_change(
    connection: Any,
    proposal: Proposal,
    *,
    change_id: str,
    justification: str,
    request: bytes,
    details: Sequence[str],
    participant_id: str,
) -> bool:
    """Adds a pinned proposal; False when its id is taken."""
    number = await connection.fetchval(
        STATEMENTS["insert_change"],
        change_id,
        proposal.kind.value,
        proposal.key.name,
        proposal.key.version,
        proposal.components,
        justification,
        request,
        list(details),
        proposal.under.version if proposal.under is not None else 0,
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


async def locked(connection: Any, change_id: str) -> tuple[Change, list[SubmittedComponent]]:
    """``lock_change`` of a change that must be there.

    Raises:
        NotFoundError: it is not.
    """
    change, components = await lock_change(connection, change_id)
    if change is None:
        raise NotFoundError("KEY_CHANGE_UNKNOWN", "no such change", field="change_id")
    return change, components


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


async def approve(connection: Any, change: Change, *, participant_id: str) -> None:
    """Marks a change that the caller holds as approved; its components are still needed.

    Raises:
        StateConflictError: another change of the key is approved, and not yet carried out to its end.
    """
    try:
        await _decide(connection, change, ChangeState.APPROVED, participant_id)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "key_changes_one_approved_key":
            raise
        raise wrong_change_state("another change of this key is being carried out") from None


async def reject(connection: Any, change: Change, *, participant_id: str) -> None:
    """Marks a change that the caller holds as rejected, and drops its components."""
    await _decide(connection, change, ChangeState.REJECTED, participant_id)
    await _drop_components(connection, change)


async def finish(connection: Any, change: Change, state: ChangeState, *, key_version: int) -> None:
    """Marks an approved change that the caller holds as executed or failed, and drops its components."""
    number = await connection.fetchval(
        STATEMENTS["finish_change"], change.change_id, state.value, key_version
    )
    assert number is not None, "a change is finished once, under its lock"
    await _drop_components(connection, change)


async def _decide(connection: Any, change: Change, state: ChangeState, participant_id: str) -> None:
    decided_at = await connection.fetchval(
        STATEMENTS["decide_change"], change.change_id, state.value, participant_id
    )
    assert decided_at is not None, "a change is decided once, under its lock"


async def _drop_components(connection: Any, change: Change) -> None:
    if change.components_needed:
        await connection.execute(STATEMENTS["drop_components"], change.change_id)


async def require_not_in_use(pool: "asyncpg.Pool[Any]", key: KeyName) -> None:
    """Refuses to give up a version that a card was issued, or a PIN is verified, under; may take minutes.

    Raises:
        StateConflictError: it is still needed.
        DatabaseUnavailableError: the database does not answer, or not in time.
    """
    for names, statement in ((AC_KEY_NAMES, "find_card_of_ac_key"), (SS_KEY_NAMES, "find_card_of_ss_key")):
        for cipher, name in names.items():
            if name == key.name and await _is_found(pool, statement, cipher, key.version):
                raise key_in_use("cards that were issued under this version still need it")
    if key.name == PIN_KEY_NAME and await _is_found(pool, "find_pin_of_key", key.version):
        raise key_in_use("PINs that are verified under this version still need it")


async def _is_found(pool: "asyncpg.Pool[Any]", statement: str, *arguments: int) -> bool:
    async with own_transaction(pool) as connection:
        await connection.fetchval(STATEMENTS["set_statement_timeout"], str(SEARCH_MAX_S * 1000))
        timeout_s = SEARCH_MAX_S + ANSWER_DELAY_MAX_S
        return bool(await connection.fetchval(STATEMENTS[statement], *arguments, timeout=timeout_s))


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


async def expire_changes(connection: Any) -> int:
    """Ends the proposals that nobody decided in time, and says so in the audit."""
    hours = int(PROPOSAL_LIFE.total_seconds()) // 3600
    return len(await connection.fetch(STATEMENTS["expire_changes"], hours))


async def list_unfinished(connection: Any) -> list[str]:
    """Ids of the changes whose approval was interrupted, the oldest first."""
    seconds = int(FINISHING_DELAY.total_seconds())
    return [str(row["change_id"]) for row in await connection.fetch(STATEMENTS["list_unfinished"], seconds)]


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
        details=tuple(row["details"]),
        under_version=row["under_version"],
        proposed_by=row["proposed_by"],
        proposed_at=row["proposed_at"],
        decided_by=row["decided_by"] or "",
        decided_at=row["decided_at"],
        now=row["now"],
    )
