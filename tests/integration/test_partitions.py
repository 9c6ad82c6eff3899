"""The partitions of business dates: made and dropped beside the running work, and never emptied otherwise."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from archive_trial import OLD, Trial

from server.archive import archiving


async def test_operations_and_postings_cannot_be_truncated(trial: Trial) -> None:
    for name in (
        "operations",
        "postings",
        f"operations_{trial.today:%Y%m%d}",
        f"postings_{trial.today:%Y%m%d}",
    ):
        with pytest.raises(asyncpg.RestrictViolationError):
            await trial.database.execute(f"TRUNCATE {name}")


async def test_partitions_are_made_while_others_read_and_write(trial: Trial) -> None:
    """A report that reads for minutes must not have every batch wait behind a new partition."""
    reader, writer = [await asyncpg.connect(trial.dsn) for _ in range(2)]
    transactions = [connection.transaction() for connection in (reader, writer)]
    for transaction in transactions:
        await transaction.start()
    await reader.fetch("SELECT count(*) FROM operations")
    await reader.fetch("SELECT count(*) FROM postings")
    await writer.execute("INSERT INTO postings VALUES (1, 1000000, 7, 1, $1, 1, 0)", trial.today)
    await trial.database.execute("SET lock_timeout = '100ms'")
    assert await trial.database.fetchval("SELECT ensure_partitions($1, 3)", trial.ago(50)) == 6
    for transaction in transactions:
        await transaction.rollback()
    for connection in (reader, writer):
        await connection.close()


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Shanghai"])
async def test_partitions_are_the_same_in_every_time_zone_of_the_session(trial: Trial, zone: str) -> None:
    await trial.database.execute(f"SET timezone = '{zone}'")
    await trial.database.execute("SET datestyle = 'German'")
    day = trial.ago(60)
    await trial.database.execute("SELECT ensure_partitions($1, 2)", day)
    bounds = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = $1"
    await trial.database.execute("SET datestyle = 'ISO'")
    for at in (day, day + timedelta(days=1)):
        expected = f"FOR VALUES FROM ('{at}') TO ('{at + timedelta(days=1)}')"
        assert await trial.database.fetchval(bounds, f"operations_{at:%Y%m%d}") == expected


async def test_batches_wait_no_longer_than_a_moment_while_a_date_is_dropped(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long reader keeps the date; those who read and write behind the archive go on in between its attempts."""
    monkeypatch.setattr(archiving, "DROP_PAUSE_MAX_S", 0.2)
    monkeypatch.setattr(archiving, "DROP_ATTEMPTS_MAX", 8)
    day = trial.ago(OLD)
    await trial.fill(day, operations=100)
    reader, hot = [await asyncpg.connect(trial.dsn) for _ in range(2)]
    # As the lanes do.
    await hot.execute("SET lock_timeout = '300ms'")
    reading = reader.transaction()
    await reading.start()
    await reader.fetch("SELECT count(*) FROM operations")
    archiving_task = asyncio.create_task(trial.archive())
    number = 0
    longest_s = 0.0
    clock = asyncio.get_running_loop().time
    while not archiving_task.done():
        started = clock()
        async with hot.transaction():
            await hot.fetch("SELECT 1 FROM operations WHERE request_id = gen_random_uuid()")
            number += 1
            await hot.execute(
                "INSERT INTO postings VALUES ($1, 1000000, 7, 1, $2, 1, 0)", number, trial.today
            )
        longest_s = max(longest_s, clock() - started)
        await asyncio.sleep(0.002)
    (stayed,) = await archiving_task
    assert "long transactions" in stayed[1].message
    assert number > 100
    assert longest_s < 0.3
    await reading.rollback()
    (done,) = await trial.archive()
    assert done.business_date == day
    for connection in (reader, hot):
        await connection.close()
