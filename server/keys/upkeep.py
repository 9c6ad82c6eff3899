"""What the housekeeper does for keys: ends proposals that nobody decided, completes approvals that were interrupted,
and destroys keys whose time has come.

All may run twice, or stop half-way: the next run finishes them, and the audit tells each once.
"""

from typing import Any

import asyncpg

from crypto.keys import KeyState
from server.database.pool import own_transaction
from server.keys import store
from server.keys.approval import KeyApprovals
from server.keys.execution import AdministeredKeys


async def expire_proposals(pool: "asyncpg.Pool[Any]") -> None:
    """Ends proposals of more than 24 hours.

    Raises:
        DatabaseUnavailableError: the database does not answer.
    """
    async with own_transaction(pool) as connection:
        await store.expire_changes(connection)


async def finish_approved(pool: "asyncpg.Pool[Any]", keys: AdministeredKeys) -> None:
    """Completes the changes whose approval was interrupted more than a minute ago.

    Raises:
        UnavailableError: the database or the key store does not answer.
    """
    await KeyApprovals(pool, keys).finish_interrupted()


async def destroy_due_keys(
    pool: "asyncpg.Pool[Any]", keys: AdministeredKeys, *, now_s: int | None = None
) -> None:
    """Destroys the keys whose time has come, and says in the audit which are gone.

    Args:
        pool: the database.
        keys: the key store.
        now_s: unix seconds; the database's clock when absent.
    Raises:
        UnavailableError: the database or the key store does not answer.
    """
    if now_s is None:
        async with own_transaction(pool) as connection:
            now_s = await store.database_time_s(connection)
    due_s = now_s
    await keys.ask(keys.store.refresh)
    await keys.ask(lambda: keys.store.destroy_due(due_s))
    # All that are gone and not only those of now: a run that died after the destruction left no entry.
    destroyed = [info for info in keys.store.describe() if info.state is KeyState.DESTROYED]
    async with own_transaction(pool) as connection:
        await store.record_destroyed(connection, destroyed)
