"""Spreads connections evenly over worker processes that share one port.

The kernel chooses the worker of a connection by a hash (SO_REUSEPORT), so eight connections on two workers
may well lie seven to one, and the figure would be that of one worker. Which process accepted a connection is
visible in /proc: a surplus one is closed and another is opened, without any help of the server.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

_ESTABLISHED: Final = "01"
# With a fair hash each worker gets its share long before; a worker that accepts nothing must end the search.
_TRIES_PER_CONNECTION_MAX: Final = 50


class SpreadError(Exception):
    """Some worker never accepted its share of the connections."""


class _Closable(Protocol):
    def close(self) -> None: ...

    def getsockname(self) -> tuple[str, int]: ...


_S = TypeVar("_S", bound=_Closable)


def parse_tcp_table(table: str, *, server_port: int) -> dict[str, int]:
    """Reads /proc/net/tcp or tcp6.

    Returns:
        Socket inode of each established connection accepted on ``server_port`` → the client's port.
    """
    inodes = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        local_port, remote_port = (int(address.rsplit(":", 1)[1], 16) for address in fields[1:3])
        if fields[3] == _ESTABLISHED and local_port == server_port:
            inodes[fields[9]] = remote_port
    return inodes


def accepted_by(pids: Sequence[int], *, server_port: int) -> dict[int, int]:
    """Tells which process holds the server's end of each connection: client port → pid."""
    client_ports: dict[str, int] = {}
    for name in ("tcp", "tcp6"):
        table = Path("/proc/net") / name
        if table.exists():
            client_ports |= parse_tcp_table(table.read_text(), server_port=server_port)
    owners = {}
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except FileNotFoundError:
                continue
            inode = target.removeprefix("socket:[").removesuffix("]")
            if inode in client_ports:
                owners[client_ports[inode]] = pid
    return owners


def connect_evenly(
    connect: Callable[[], _S], *, connections: int, pids: Sequence[int], server_port: int
) -> tuple[list[_S], Counter[int]]:
    """Opens connections until each worker holds an equal share.

    Args:
        connect: opens one connection, handshake included: only then has a worker accepted it.
        connections: how many in all; the workers' shares differ by one at most.
        pids: the workers; empty when they are not known, then the kernel's choice stands.
        server_port: the shared port.
    Returns:
        The connections, ordered so that neighbours lie on different workers, and pid → connections.
    Raises:
        SpreadError: a worker did not get its share.
    """
    if not pids:
        return [connect() for _ in range(connections)], Counter()
    shares = {pid: connections // len(pids) + (i < connections % len(pids)) for i, pid in enumerate(pids)}
    held: dict[int, list[_S]] = {pid: [] for pid in pids}
    for _ in range(connections * _TRIES_PER_CONNECTION_MAX):
        if sum(map(len, held.values())) == connections:
            break
        opened = connect()
        owner = accepted_by(pids, server_port=server_port).get(opened.getsockname()[1])
        if owner is not None and len(held[owner]) < shares[owner]:
            held[owner].append(opened)
        else:
            opened.close()
    else:
        raise SpreadError(f"connections per worker: { {pid: len(held[pid]) for pid in pids} }")
    rounds = range(max(shares.values()))
    ordered = [held[pid][turn] for turn in rounds for pid in pids if turn < len(held[pid])]
    return ordered, Counter({pid: len(sockets) for pid, sockets in held.items()})
