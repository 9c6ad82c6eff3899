"""The audit of changes of keys: each step in the transaction that takes it, and each refusal in one of its own."""

from typing import Any, NoReturn

import asyncpg

from server.database.pool import own_transaction
from server.errors import NotGrantedError, OneCardError, StateConflictError
from server.keys import store
from server.keys.rules import Change, ChangeKind, Step
from server.keys.shapes import KeyName

# What the rules refuse is a row of the audit; a malformed field or an unknown id is not.
AUDITED_REFUSALS = (NotGrantedError, StateConflictError)


async def write_step(
    connection: Any, step: Step, change: Change, *, participant_id: str, detail: str
) -> None:
    """Adds a step of a change, in the caller's transaction."""
    await store.write_audit(
        connection,
        step,
        participant_id=participant_id,
        change_id=change.change_id,
        key_name=change.key_name,
        key_version=change.key_version,
        detail=detail,
    )


async def refuse(
    pool: "asyncpg.Pool[Any]",
    error: OneCardError,
    *,
    participant_id: str,
    change_id: str,
    key: KeyName,
    kind: ChangeKind,
) -> NoReturn:
    """Writes a refusal into the audit, in a transaction of its own, and raises it."""
    async with own_transaction(pool) as connection:
        await store.write_audit(
            connection,
            Step.REFUSED,
            participant_id=participant_id,
            change_id=change_id,
            key_name=key.name,
            key_version=key.version,
            detail=f"{kind.value} {error.reason}",
        )
    raise error


async def refuse_change(
    pool: "asyncpg.Pool[Any]", error: OneCardError, change: Change, *, participant_id: str
) -> NoReturn:
    """``refuse`` of a change that is there."""
    await refuse(
        pool,
        error,
        participant_id=participant_id,
        change_id=change.change_id,
        key=KeyName(name=change.key_name, version=change.key_version),
        kind=change.kind,
    )
