"""A database with operations of long ago, for archives: wallets whose balances are the sums of their postings."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from server.archive.archiving import ArchivePolicy, archive_due
from server.database import migrate
from server.engine.business_calendar import BusinessCalendar

CALENDAR = BusinessCalendar.of(time_zone="Asia/Shanghai", cutoff="23:00")
WALLETS = 40
FIRST_WALLET = 1_000_000
SETTLEMENT_ACCOUNT = 7
OPERATIONS_DAYS = 100
# Days ago of a date that is due.
OLD = OPERATIONS_DAYS + 3

INSERT_OPERATIONS = """
INSERT INTO operations (operation_id, request_id, card_id, amount_minor, terminal_time_unix_ms, decided_at,
                        business_date, stan, shard, operation_kind, mti_class, reason, participant_id, terminal_id,
                        merchant_id, response_code, switch_key, request_digest, response, account_id,
                        approved_minor, flags)
SELECT $2::bigint + n, gen_random_uuid(), n % 40, CASE WHEN n % 7 > 0 THEN n END, 1767225600000 + n,
       $1::date + interval '1 hour' + n * interval '1.000001 second', $1::date, n % 1000000, n % 4, 1 + n % 2,
       CASE WHEN n % 7 > 0 THEN 2 END, 1, 'bank-01', 'T' || n, CASE WHEN n % 3 > 0 THEN '商户' || n || '"\\' END, '00',
       CASE WHEN n % 7 > 0 THEN decode(md5('key' || n), 'hex') END, decode(md5(n::text), 'hex'),
       CASE WHEN n % 5 > 0 THEN decode(repeat(md5(n::text), 4), 'hex') ELSE '' END,
       1000000 + n % 40, n, n % 3
FROM generate_series(1, $3::integer) AS n
"""
INSERT_POSTINGS = """
INSERT INTO postings (operation_id, posting_number, debit_account_id, credit_account_id, amount_minor, business_date,
                      shard)
SELECT $2::bigint + n, 1, CASE WHEN n % 4 = 0 THEN 1000000 + n % 40 ELSE 7 END,
       CASE WHEN n % 4 = 0 THEN 7 ELSE 1000000 + n % 40 END, CASE WHEN n % 4 = 0 THEN 1 ELSE n END, $1::date, n % 4
FROM generate_series(1, $3::integer) AS n
"""
BALANCES = """
SELECT account_id, shard, sum(amount_minor)::bigint AS amount_minor
FROM (
    SELECT credit_account_id AS account_id, shard, amount_minor FROM postings
    UNION ALL SELECT debit_account_id, shard, -amount_minor FROM postings
    UNION ALL SELECT account_id, shard, amount_minor FROM archived_balances
) AS sides
GROUP BY account_id, shard
HAVING sum(amount_minor) <> 0
ORDER BY 1, 2
"""


@dataclass
class Trial:
    """A database and a directory of archives."""

    dsn: str
    database: "asyncpg.Connection[Any]"
    directory: Path
    today: date

    @classmethod
    async def open(cls, dsn: str, directory: Path) -> "Trial":
        database = await asyncpg.connect(dsn)
        await migrate.migrate(database)
        today = CALENDAR.business_date_of(await database.fetchval("SELECT now()"))
        return cls(dsn, database, directory, today)

    def ago(self, days: int) -> date:
        return self.today - timedelta(days=days)

    async def fill(self, business_date: date, *, operations: int, settled: bool = True) -> None:
        """Operations of a date, each with a posting."""
        await self.database.execute("SELECT ensure_partitions($1, 1)", business_date)
        first = business_date.toordinal() * 1_000_000
        async with self.database.transaction():
            await self.database.execute(INSERT_OPERATIONS, business_date, first, operations)
            await self.database.execute(INSERT_POSTINGS, business_date, first, operations)
            if settled:
                await self.settle(business_date)

    async def settle(self, business_date: date) -> None:
        """As settlement leaves a date that it has done with."""
        await self.database.execute(
            "INSERT INTO settlement_days (business_date, first_sequence, last_sequence, event_count, closed_at)"
            " VALUES ($1, 1, 1, 1, now())",
            business_date,
        )
        await self.database.execute("INSERT INTO made_days (business_date) VALUES ($1)", business_date)

    @property
    def policy(self) -> ArchivePolicy:
        return ArchivePolicy(
            directory=self.directory,
            operations_days=OPERATIONS_DAYS,
            request_log_hours=72,
            calendar=CALENDAR,
        )

    async def archive(self) -> list[Any]:
        return [result async for result in archive_due(self.dsn, self.policy)]

    async def balances(self) -> list[tuple[int, int, int]]:
        """What the postings of every account come to, those in archives too."""
        return [tuple(row) for row in await self.database.fetch(BALANCES)]

    async def rows(self, table: str, business_date: date) -> list[Any]:
        return await self.database.fetch(
            f"SELECT * FROM {table} WHERE business_date = $1 ORDER BY operation_id", business_date
        )

    async def is_online(self, business_date: date) -> bool:
        """Both partitions are there, or neither is."""
        names = [f"{table}_{business_date:%Y%m%d}" for table in ("operations", "postings")]
        found = await self.database.fetchval(
            "SELECT count(to_regclass(n)) FROM unnest($1::text[]) AS n", names
        )
        assert found in (0, 2), "one table without the other"
        return bool(found)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())
