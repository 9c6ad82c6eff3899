"""Purpose binding: an access names a catalogue item and version, and both must be in force now."""

from typing import Any

import asyncpg

from server.database.pool import acquired
from server.database.statements import load
from server.errors import NotFoundError, StateConflictError

LOAD_ITEMS = load("server.catalogue")["load_items"]


class Catalogue:
    """The published items in memory; a ``PeriodicReader`` calls ``refresh``."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool
        self._in_force: dict[tuple[str, int], bool] = {}

    async def refresh(self) -> None:
        """
        Raises:
            DatabaseUnavailableError: the database does not answer; what was known stays.
        """
        async with acquired(self._pool) as connection:
            rows = await connection.fetch(LOAD_ITEMS)
        self._in_force = {(item, version): in_force for item, version, in_force in rows}

    def require(self, catalogue_item: str, version: int) -> None:
        """
        Raises:
            NotFoundError: no such item or version.
            StateConflictError: the item is not yet or no longer in force.
        """
        in_force = self._in_force.get((catalogue_item, version))
        if in_force is None:
            raise NotFoundError(
                "CATALOGUE_ITEM_UNKNOWN", "no such catalogue item or version", field="catalogue_item"
            )
        if not in_force:
            raise StateConflictError(
                "CATALOGUE_ITEM_NOT_IN_FORCE", "the catalogue item is not in force", field="catalogue_item"
            )
