"""The baseline's own tool, on the embedded PostgreSQL, over its unix socket."""

import asyncio

import asyncpg
import pytest

from benchmarks.core_process import find_pgbench
from benchmarks.suite_pgbench import DATABASE, PgbenchTarget, measure, pgbench_database
from server.database.embedded import EmbeddedPostgres


@pytest.mark.timeout(90)
async def test_pgbench_measures_in_a_database_of_its_own_and_leaves_none(postgres: EmbeddedPostgres) -> None:
    assert postgres.pid is not None
    target = PgbenchTarget(find_pgbench(), postgres.socket_dir, postgres.pid)

    def run() -> None:
        with pgbench_database(target, scale=1):
            measured = measure(target, clients=2, seconds=1)
        assert measured.rate_per_s > 0
        assert measured.transactions > 0
        assert measured.failed == 0
        assert measured.cpu["postgresql"].seconds > 0

    await asyncio.to_thread(run)
    connection = await asyncpg.connect(postgres.dsn(user="postgres", database="postgres"))
    try:
        assert await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE) is None
    finally:
        await connection.close()
