"""Ids of operations, fetched from the database in blocks."""

from typing import Any, TypeAlias

import asyncpg

from server.database.statements import load

NEXT_OPERATION_IDS = load("server.engine")["next_operation_ids"]

OPERATION_IDS_PER_BLOCK = 10_000

Connection: TypeAlias = "asyncpg.Connection[Any]"


class OperationIds:
    """The ids a lane has at hand: whoever uses ``next`` adds one to it."""

    __slots__ = ("_end", "next")

    def __init__(self) -> None:
        self.next = 0
        self._end = 0

    async def reserve(self, connection: Connection, count: int) -> None:
        """Makes sure ``count`` consecutive ids are at hand; ids of a rolled-back batch are lost, never reused."""
        if self.next + count > self._end:
            self.next = await connection.fetchval(NEXT_OPERATION_IDS)
            self._end = self.next + OPERATION_IDS_PER_BLOCK
