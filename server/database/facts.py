"""What a database was made for, and what therefore never changes about it: the number of shards, and the business day.

Rows lie where the number of shards put them; another number would look for them, and for used tokens, in other places.
Instances that cut days at different times would close dates that others still write.
"""

import asyncpg

from server.database.statements import load
from server.errors import ConfigurationError

SHARDS = "shards"
SHARDS_DEFAULT = 1
TIME_ZONE, CUTOFF = "time_zone", "business_day_cutoff"


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


async def settle_calendar(connection: asyncpg.Connection, *, time_zone: str, cutoff: str) -> None:
    """Records the time zone and the cut-off (``HH:MM``) of business days; the first instance that starts fixes them.

    Raises:
        ConfigurationError: the database was made with others.
    """
    statements = load("server.database")
    for fact, asked in ((TIME_ZONE, time_zone), (CUTOFF, cutoff)):
        await connection.execute(statements["record_fact"], fact, asked)
        found = await connection.fetchval(statements["read_fact"], fact)
        if asked != found:
            raise ConfigurationError(
                f"{fact} is {asked}, but this database was made with {found}: it never changes, give that one"
            )


async def read_calendar(connection: asyncpg.Connection) -> tuple[str, str]:
    """The recorded time zone and cut-off of business days.

    Raises:
        ConfigurationError: no instance has started on this database yet.
    """
    statements = load("server.database")
    found = [await connection.fetchval(statements["read_fact"], fact) for fact in (TIME_ZONE, CUTOFF)]
    if None in found:
        raise ConfigurationError(
            "the database does not know its business day: start 'onecard serve' on it once"
        )
    return found[0], found[1]
