"""What a database was made for, and what therefore never changes about it: the number of shards of its hot tables.

Rows lie where the number of shards put them; another number would look for them, and for used tokens, in other places.
"""

import asyncpg

from server.database.statements import load
from server.errors import ConfigurationError

SHARDS = "shards"
SHARDS_DEFAULT = 1


async def settle_shards(connection: asyncpg.Connection, *, asked: int) -> int:
    """The number of shards of the database; the first instance that starts on it fixes it.

    Args:
        asked: what the instance was told; 0 takes what the database has, and 1 when it is new.
    Raises:
        ConfigurationError: the database was made with another number.
    """
    statements = load("server.database")
    # Of two first instances one writes; the other finds what that one committed.
    await connection.execute(statements["record_fact"], SHARDS, str(asked or SHARDS_DEFAULT))
    found = int(await connection.fetchval(statements["read_fact"], SHARDS))
    if asked not in (0, found):
        raise ConfigurationError(
            f"shards is {asked}, but this database was made with {found}: the number never changes, leave it out"
        )
    return found
