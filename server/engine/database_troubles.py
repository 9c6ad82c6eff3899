"""What the database raises, by what a batch does about it: run again, go on without the one, or come back later.

Branches are on types, which asyncpg makes of SQLSTATEs, never on texts.
"""

import asyncpg

from server.errors import DatabaseUnavailableError


class PerhapsAnsweredError(Exception):
    """An operation has no outcome now, and was not looked up: it may have one since before."""


# A lost race: the winner has committed, so another attempt reads what it wrote.
LOST_RACE = (
    PerhapsAnsweredError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
)
# One row is held by somebody else for too long: the rest of the batch goes on without it.
HELD_UP = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
# The connection is gone or useless. Whether its last commit happened is unknown until the ids are read again.
CONNECTION_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg raises when the server went away between two statements.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    # A standby after a failover: the next connection asks for one that writes.
    asyncpg.ReadOnlySQLTransactionError,
    DatabaseUnavailableError,
    OSError,
    TimeoutError,
)
OUT_OF_RESOURCES = (asyncpg.InsufficientResourcesError, asyncpg.PostgresIOError)
