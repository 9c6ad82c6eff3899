"""A place for settlement's tests: a database of its own, writers like the engine's lanes, workers that serve it."""

import asyncio
import contextlib
import datetime
import itertools
import json
import random
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from onecard.v1 import settlement_pb2 as pb
from running_instance import eventually

from clients.channel import ClientCredentials, OneCardChannel
from clients.retry import RetryPolicy
from clients.service_client import OneCardClient
from server.database import migrate
from server.database.statements import load
from server.development_ca import issue_participant_certificate
from server.engine.operation import OperationKind

CARDS_PER_SHARD = 24
SHARDS = 2
FIRST_ACCOUNT = 1_000_000
PURCHASE, DEPOSIT = OperationKind.PURCHASE, OperationKind.DEPOSIT
CLASSES = ("settlement_events", "settlement_position", "settlement_closing")
ENGINE = load("server.engine")
NO_ACCESS: list[tuple[()]] = [()] * 8
WAIT_S = 30.0
WORKER = Path(__file__).with_name("settlement_worker.py")


async def make_database(admin: asyncpg.Connection, dsn: str, name: str) -> None:
    """A migrated database with cards, wallets, participants and their grants."""
    await admin.execute(f"CREATE DATABASE {name} OWNER onecard")
    database = await asyncpg.connect(dsn)
    await migrate.migrate(database)
    # Tests have their own calendar: yesterday in UTC.
    await database.execute("SELECT ensure_partitions(current_date - 2, 5)")
    await database.execute(
        "INSERT INTO card_states (card_id, shard, status, transaction_amount_max_minor, day_amount_max_minor)"
        " SELECT n, n % $2, 2, 1, 1 FROM generate_series(1, $1::integer) AS n",
        CARDS_PER_SHARD * SHARDS,
        SHARDS,
    )
    await database.execute(
        "INSERT INTO accounts (account_id, card_id, shard) SELECT $3 + n, n, n % $2"
        " FROM generate_series(1, $1::integer) AS n",
        CARDS_PER_SHARD * SHARDS,
        SHARDS,
        FIRST_ACCOUNT,
    )
    edge = load("server.edge")
    for participant, kind in (("bank-01", "bank"), ("bank-02", "bank"), ("operator-01", "operator")):
        await database.fetch(edge["add_participant"], participant, participant, kind)
        await database.fetch(edge["grant_participant"], participant, "rpc_class", list(CLASSES))
    await database.close()


@dataclass(slots=True)
class Written:
    """An operation of a transaction that committed."""

    operation_id: int
    card_id: int
    participant_id: str
    amount_minor: int
    business_date: datetime.date


@dataclass(kw_only=True)
class Move:
    """What a test's transaction decides on one card; a purchase moves money to the settlement account, else from it."""

    card_id: int
    amount_minor: int = 1
    kind: int = DEPOSIT
    participant_id: str = "bank-01"
    response_code: str | None = "00"
    reason: int = 1
    flags: int | None = None
    approved_minor: int | None = -1
    original_operation_id: int | None = None
    # (debit, credit, amount); None means one between the participant's settlement account and the wallet.
    postings: Sequence[tuple[int, int, int]] | None = None
    held_minor: int = 0
    terminal_id: str = "T1"
    merchant_id: str = "M1"


@dataclass
class Lane:
    """Writes as a lane of the engine does: with its statements, under the locks of its cards."""

    connection: asyncpg.Connection
    accounts: dict[str, int]
    written: list[Written] = field(default_factory=list)
    _ids: Any = field(default_factory=lambda: iter(()))
    _stans: Any = field(default_factory=lambda: itertools.count(random.randrange(1, 900_000)))

    async def write(
        self,
        moves: Sequence[Move],
        *,
        business_date: datetime.date | None = None,
        delay_s: float = 0,
        rolls_back: bool = False,
    ) -> list[Written]:
        """One transaction of one shard."""
        shard = moves[0].card_id % SHARDS
        assert {move.card_id % SHARDS for move in moves} == {shard}
        transaction = self.connection.transaction()
        await transaction.start()
        card_ids = sorted({move.card_id for move in moves})
        rows = await self.connection.fetch(ENGINE["lock_cards"], card_ids, shard)
        now = datetime.datetime.fromtimestamp(rows[-1][0], datetime.UTC)
        date = business_date or now.date()
        wallets = await self.connection.fetch(
            "SELECT account_id, posted_minor, held_minor, ctid FROM accounts"
            " WHERE card_id = ANY ($1::bigint[]) AND shard = $2",
            card_ids,
            shard,
        )
        balances = {row["account_id"]: [row["posted_minor"], row["held_minor"]] for row in wallets}
        operations, postings, written = [], [], []
        for move in moves:
            operation_id = await self._next_id()
            account = FIRST_ACCOUNT + move.card_id
            operations.append(self._operation(operation_id, move, account))
            for number, (debit, credit, amount) in enumerate(self._postings(move, account), start=1):
                postings.append((operation_id, number, debit, credit, amount))
                for side, sign in ((debit, -1), (credit, 1)):
                    if side in balances:
                        balances[side][0] += sign * amount
            balances[account][1] += move.held_minor
            written.append(Written(operation_id, move.card_id, move.participant_id, move.amount_minor, date))
        if delay_s:
            await asyncio.sleep(delay_s)
        await self.connection.execute(
            ENGINE["persist"],
            *(shard, date, now, [], [(number, *sums) for number, sums in balances.items()]),
            *(operations, postings, *NO_ACCESS),
            *(operations[0][0], operations[-1][0], len(operations)),
            *([], [row["ctid"] for row in wallets]),
        )
        if delay_s:
            await asyncio.sleep(delay_s)
        if rolls_back:
            await transaction.rollback()
            return []
        await transaction.commit()
        self.written += written
        return written

    async def _next_id(self) -> int:
        operation_id = next(self._ids, None)
        if operation_id is None:
            first = await self.connection.fetchval(ENGINE["next_operation_ids"])
            self._ids = iter(range(first, first + 10_000))
            operation_id = next(self._ids)
        return operation_id

    def _postings(self, move: Move, account: int) -> Sequence[tuple[int, int, int]]:
        if move.postings is not None:
            return move.postings
        if move.response_code not in ("00", "10"):
            return ()
        settlement = self.accounts[move.participant_id]
        amount = move.amount_minor if move.approved_minor in (-1, None) else move.approved_minor
        sides = (account, settlement) if move.kind == PURCHASE else (settlement, account)
        return [(*sides, amount)]

    def _operation(self, operation_id: int, move: Move, account: int) -> tuple[Any, ...]:
        is_approved = move.response_code in ("00", "10")
        approved = (
            (move.amount_minor if is_approved else 0) if move.approved_minor == -1 else move.approved_minor
        )
        return (
            *(operation_id, str(uuid.uuid4()), move.card_id, move.amount_minor, 0),
            *(next(self._stans), move.kind, None, move.reason, move.participant_id),
            *(move.terminal_id, move.merchant_id, move.response_code, b"digest", b"response"),
            *(account, approved, move.original_operation_id, 1, move.flags, None),
        )


@dataclass
class Site:
    """The database, its writers, and the workers that serve it."""

    dsn: str
    data_dir: Path
    database: asyncpg.Connection
    accounts: dict[str, int]
    port: int = 0
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    connections: list[asyncpg.Connection] = field(default_factory=list)

    @classmethod
    async def open(cls, dsn: str, data_dir: Path) -> "Site":
        database = await asyncpg.connect(dsn)
        rows = await database.fetch("SELECT participant_id, settlement_account_id FROM participants")
        return cls(dsn, data_dir, database, dict(rows))

    async def close(self) -> None:
        for worker in self.workers:
            self.kill(worker)
        for connection in (*self.connections, self.database):
            await connection.close()

    @staticmethod
    def kill(worker: "subprocess.Popen[bytes]") -> None:
        worker.kill()
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()

    async def lane(self) -> Lane:
        self.connections.append(await asyncpg.connect(self.dsn))
        return Lane(self.connections[-1], self.accounts)

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """A worker on the site's port, once it serves."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        facts = {"dsn": self.dsn, "port": self.port, "data_dir": str(self.data_dir)}
        worker = subprocess.Popen([sys.executable, str(WORKER), json.dumps(facts)], stdout=subprocess.PIPE)
        self.workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        return worker

    @asynccontextmanager
    async def client(self, participant_id: str, *, channels: int = 1) -> AsyncIterator[OneCardClient]:
        issue_participant_certificate(self.data_dir, participant_id)
        credentials = ClientCredentials.of_participant(self.data_dir, participant_id)
        address = f"localhost:{self.port}"
        retry = RetryPolicy(attempts_max=1)
        async with OneCardChannel(address, credentials, channels=channels, retry=retry) as channel:
            yield OneCardClient(channel)


__all__ = ["Lane", "Move", "Site", "Written", "eventually", "make_database"]


async def taken(
    client: OneCardClient, *, through: int, after: int = 0, kinds: Sequence[int] = (), participant: str = ""
) -> list[pb.Event]:
    """The events up to a number, from one subscription."""
    request = pb.SubscribeEventsRequest(after_sequence=after, kinds=kinds, participant=participant)  # type: ignore[arg-type]
    events: list[pb.Event] = []
    async with asyncio.timeout(WAIT_S), contextlib.aclosing(client.subscribe_events(request)) as messages:
        async for message in messages:
            events += message.events
            if message.through_sequence >= through:
                return events
    raise AssertionError("a subscription has no end")
