"""Stands between the core and PostgreSQL, and can fail there like a network does.

Bytes from the core are looked at only for the word that ends a transaction, because the moment around a commit is
the one where its outcome is unknown.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

COMMIT = b"COMMIT"
# Part of the start-up message of a hot-path connection.
LANE = b"onecard lane"


class Cut(Enum):
    """Where a hot-path connection is cut."""

    BEFORE_COMMIT = "the commit never reaches the server"
    AFTER_COMMIT_SENT = "the commit reaches the server, its answer may or may not be under way"
    AFTER_COMMIT_DONE = "the server has committed, its answer is lost"
    ANYWHERE = "in the middle of any message from the core"


@dataclass
class TcpProxy:
    """Listens on a TCP port and forwards to a server's unix socket.

    ``cuts`` are used up one by one, each by the next connection and moment it fits.
    """

    socket_path: Path
    cuts: list[Cut] = field(default_factory=list)
    cuts_made: int = 0
    reachable: bool = True
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    _frozen: set[asyncio.StreamWriter] = field(default_factory=set)

    async def open(self) -> int:
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thawed = asyncio.Event()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        self.cut_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> None:
        """Cuts every open connection at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    def lose(self) -> None:
        """The server is gone: nothing goes through and nobody gets in."""
        self.reachable = False
        self.cut_all()

    def freeze(self) -> None:
        """The network swallows everything on the open connections, for ever, and closes none; new ones work."""
        self._frozen |= self._writers

    def find(self) -> None:
        self.reachable = True

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, core_reader: asyncio.StreamReader, core_writer: asyncio.StreamWriter) -> None:
        if not self.reachable:
            core_writer.transport.abort()
            return
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            server_reader, server_writer = await asyncio.open_unix_connection(str(self.socket_path))
            link = _Link(self, core_writer, server_writer, server_reader)
            self._writers |= {core_writer, server_writer}
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(core_reader, link.from_core))
                    group.create_task(_pump(server_reader, link.from_server))
            except* (_LinkCutError, OSError):
                pass
            finally:
                self._writers -= {core_writer, server_writer}
                for writer in (core_writer, server_writer):
                    writer.transport.abort()

    def is_frozen(self, writer: asyncio.StreamWriter) -> bool:
        return writer in self._frozen


class _LinkCutError(Exception):
    """One side ended, or the proxy cut the link."""


@dataclass
class _Link:
    """One connection through the proxy."""

    proxy: TcpProxy
    core: asyncio.StreamWriter
    server: asyncio.StreamWriter
    server_reader: asyncio.StreamReader
    is_lane: bool = False
    swallows_answer: bool = False

    async def from_core(self, chunk: bytes) -> None:
        if self.proxy.is_frozen(self.core):
            return
        self.is_lane = self.is_lane or LANE in chunk
        if self.is_lane and self.proxy.cuts:
            await self._cut(chunk)
        self.server.write(chunk)
        await self.server.drain()

    async def from_server(self, chunk: bytes) -> None:
        if self.swallows_answer:
            raise _LinkCutError
        if self.proxy.is_frozen(self.core):
            return
        self.core.write(chunk)
        await self.core.drain()

    async def _cut(self, chunk: bytes) -> None:
        cut = self.proxy.cuts[0]
        ends_transaction = COMMIT in chunk
        if LANE in chunk or (cut is not Cut.ANYWHERE and not ends_transaction):
            return
        self.proxy.cuts.pop(0)
        self.proxy.cuts_made += 1
        if cut is Cut.AFTER_COMMIT_DONE:
            self.swallows_answer = True
            return
        if cut is Cut.AFTER_COMMIT_SENT:
            self.server.write(chunk)
            await self.server.drain()
        elif cut is Cut.ANYWHERE:
            self.server.write(chunk[: self.proxy.rng.randrange(len(chunk))])
            await self.server.drain()
        raise _LinkCutError


async def _pump(reader: asyncio.StreamReader, forward: Callable[[bytes], Awaitable[None]]) -> None:
    while chunk := await reader.read(1 << 16):
        await forward(chunk)
    raise _LinkCutError
