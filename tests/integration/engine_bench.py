"""A bench for the engine: a real PostgreSQL, and a capability that can be told to fail at any step of a batch."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import asyncpg
from google.protobuf.wrappers_pb2 import StringValue

from server.database.pool import HotPathConnection
from server.engine.business_calendar import BusinessCalendar
from server.engine.group_commit import GroupCommit
from server.engine.operation import Batch, Capability, MoneyFields, Operation, OperationKind, Outcome, Posting
from server.engine.request_log import switch_key
from server.engine.transaction import LaneSettings
from server.errors import NotFoundError
from server.rulebook.book import RuleBook
from server.settings import Settings

CARDS = 64
FIRST_ACCOUNT = 1_000_000
SETTLEMENT_ACCOUNT = 7
ITEM = "trial"


class Trouble(Enum):
    """Where an operation makes its batch fail."""

    PREPARE = "an exception before the lock"
    READ = "an error of the database under the lock"
    DECIDE = "an exception while deciding"
    CHECK = "a violated CHECK in the batch's own statement"
    VALUE = "a value the driver cannot send"
    PERSIST = "an error of the capability's own statement"


@dataclass(slots=True, kw_only=True)
class TrialOperation(Operation):
    """Adds money to a wallet, unless it is told to make trouble."""

    trouble: Trouble | None = None
    refused: bool = False
    lost_races: int = 0
    cut_connections: int = 0
    # Asks the key store, and waits for it.
    keys: asyncio.Event | None = None

    @property
    def asks_keys(self) -> bool:
        return self.keys is not None


class Trial(Capability):
    """Decides, with an answer that no second decision would give again."""

    async def prepare(self, operations: Sequence[TrialOperation]) -> None:
        for operation in operations:
            if operation.keys is not None:
                await operation.keys.wait()
        if any(o.trouble is Trouble.PREPARE for o in operations):
            raise RuntimeError("trouble")

    async def read(self, connection: Any, operations: Sequence[TrialOperation], batch: Batch) -> None:
        if any(o.trouble is Trouble.READ for o in operations):
            await connection.execute("SELECT 1 / 0")

    def decide(self, operation: TrialOperation, batch: Batch) -> Outcome:
        if operation.trouble is Trouble.DECIDE:
            raise RuntimeError("trouble")
        if operation.refused:
            raise NotFoundError("TRIAL_UNKNOWN", "no such thing")
        if batch.switch_key_holder is not None:
            return Outcome(StringValue(value=f"{batch.operation_id} duplicate"), 2, "94")
        assert operation.money is not None
        assert operation.account_id is not None
        amount = operation.money.amount_minor
        account = batch.accounts[operation.account_id]
        account.posted_minor += -1_000_000 if operation.trouble is Trouble.CHECK else amount
        account.changed = True
        posting = Posting(SETTLEMENT_ACCOUNT, operation.account_id, amount)
        text = f"{batch.operation_id} holds {account.posted_minor}"
        return Outcome(StringValue(value=text), 1, "00", (posting,))

    async def persist(
        self, connection: Any, batch: Batch, decided: Sequence[tuple[TrialOperation, Outcome]]
    ) -> None:
        for operation, _ in decided:
            if operation.trouble is Trouble.VALUE:
                await connection.execute("SELECT $1::integer", 2**40)
            if operation.trouble is Trouble.PERSIST:
                await connection.execute("INSERT INTO postings DEFAULT VALUES")
            if operation.lost_races:
                operation.lost_races -= 1
                await connection.execute("DO $$ BEGIN RAISE serialization_failure; END $$")
            if operation.cut_connections:
                operation.cut_connections -= 1
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    def replay(self, operation: TrialOperation, response: bytes) -> StringValue:
        return StringValue.FromString(response)


TRIAL = Trial()
_stans = iter(range(1, 1_000_000))


def trial(card: int = 1, **changes: Any) -> TrialOperation:
    """An operation on card 1 to 64 that adds 10 fen."""
    parts: dict[str, Any] = {
        "capability": TRIAL,
        "kind": OperationKind.DEPOSIT,
        "participant_id": "bank-01",
        "request_id": str(uuid.uuid4()),
        "request_digest": b"digest",
        "deadline": asyncio.get_running_loop().time() + 30,
        "terminal_id": "T1",
        "card_id": card,
        "account_id": FIRST_ACCOUNT + card,
        "catalogue_item": ITEM,
        "catalogue_item_version": 1,
        "money": MoneyFields(
            amount_minor=10,
            stan=(stan := next(_stans)),
            mti_class=2,
            merchant_id="",
            terminal_time_unix_ms=0,
            switch_key=switch_key("bank-01", stan=stan, mti_class=2, terminal_id="T1"),
        ),
    }
    return TrialOperation(**parts | changes)


@dataclass
class Bench:
    """Engines on one database, and what the database holds."""

    settings: Settings
    dsn: str
    database: asyncpg.Connection
    superuser_dsn: str
    engines: list[GroupCommit] = field(default_factory=list)

    def engine(
        self, *, lanes: int = 2, batch_max: int = 512, queue_max: int = 10_000, **parts: Any
    ) -> GroupCommit:
        async def find_cards(_connection: Any, _indexes: Any) -> dict[bytes, Any]:
            return {}

        defaults: dict[str, Any] = {
            "open_connection": lambda: HotPathConnection(self.settings, self.dsn, application_name="trial"),
            "find_cards": find_cards,
            "calendar": BusinessCalendar.of(time_zone="Asia/Shanghai", cutoff="23:00"),
            "request_log_hours": 72,
            "shard_count": 1,
            "rules": RuleBook(),
            "keys_may_block": False,
            "observe": lambda *_: None,
        }
        engine = GroupCommit(
            lanes=lanes,
            batch_max=batch_max,
            queue_max=queue_max,
            lane_settings=LaneSettings(**defaults | parts),
        )
        engine.start()
        self.engines.append(engine)
        return engine

    async def empty(self) -> None:
        """Takes all operations away; the schema refuses that, but a superuser may work without triggers."""
        superuser = await asyncpg.connect(self.superuser_dsn)
        await superuser.execute("SET session_replication_role = replica")
        await superuser.execute("TRUNCATE operations, postings, access_blocks, event_batches")
        await superuser.execute("UPDATE accounts SET posted_minor = 0")
        await superuser.close()

    async def posted_minor(self, card: int) -> int:
        statement = "SELECT posted_minor FROM accounts WHERE account_id = $1"
        return await self.database.fetchval(statement, FIRST_ACCOUNT + card)

    async def rows_of(self, operation: TrialOperation) -> tuple[int, int, int]:
        """Answers, postings and access entries of a request id."""
        row = await self.database.fetchrow(
            "SELECT (SELECT count(*) FROM operations WHERE request_id = $1),"
            " (SELECT count(*) FROM postings JOIN operations USING (operation_id) WHERE request_id = $1),"
            " (SELECT count(*) FROM access_log WHERE request_id = $1)",
            operation.request_id,
        )
        return tuple(row)

    async def other_connection(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.dsn)

    async def until_waiting(self, count: int) -> None:
        """Returns when ``count`` sessions wait for a lock."""
        statement = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        async with asyncio.timeout(10):
            while await self.database.fetchval(statement) < count:  # noqa: ASYNC110 - a row, not an event
                await asyncio.sleep(0.01)


# Answers, postings and access entries of a request id.
ONCE, NEVER = (1, 1, 1), (0, 0, 0)
