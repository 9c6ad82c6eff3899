"""Archiving and restoring killed at any moment, as real processes: nothing is lost, and run again it succeeds."""

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from integration.archive_trial import OPERATIONS_DAYS, Trial

from server.archive.parquet_file import UNFINISHED, read_sums
from server.database.embedded import EmbeddedPostgres
from server.database.statements import load

OPERATIONS = 60_000
WAIT_S = 40.0
RANDOM_KILLS = 6
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'onecard archive'"
RUNS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'onecard archive' AND query ~ $1"

Condition = Callable[[], Awaitable[bool]]


@pytest_asyncio.fixture(scope="module")
async def trial(directory: Path) -> AsyncIterator[Trial]:
    server = EmbeddedPostgres(directory)
    await server.start()
    trial = await Trial.open(server.dsn(), directory / "archive")
    yield trial
    await trial.database.close()
    await server.stop()
    shutil.rmtree(trial.directory, ignore_errors=True)


class Onecard:
    """``onecard archive …`` as a process of its own."""

    def __init__(self, trial: Trial, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "server.cli", "archive", *arguments),
                *("--dsn", trial.dsn, "--archive-dir", str(trial.directory)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def killed_when(self, condition: Condition) -> None:
        async with asyncio.timeout(WAIT_S):
            while not await condition():
                assert self.process.poll() is None, "it ended before it could be killed"
                await asyncio.sleep(0.001)
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    async def ends_well(self) -> str:
        output, _ = await asyncio.to_thread(self.process.communicate, timeout=WAIT_S)
        assert self.process.returncode == 0, output
        return output


async def sessions_ended(trial: Trial) -> None:
    """The server notices within moments that its client is gone, and takes back what was not committed."""
    async with asyncio.timeout(WAIT_S):
        while await trial.database.fetchval(SESSIONS):  # noqa: ASYNC110 - a row, not an event
            await asyncio.sleep(0.01)


async def settled(trial: Trial, day: date, balances: list[tuple[int, int, int]]) -> bool:
    """Nothing is lost whatever happened; tells whether the date is online."""
    await sessions_ended(trial)
    assert await trial.balances() == balances
    rows = await trial.database.fetch(load("server.archive")["list_archives"], day, None)
    archived = bool(rows) and not rows[-1]["is_restored"]
    assert await trial.is_online(day) is not archived
    for row in rows:
        assert read_sums(trial.directory / row["file_name"]).digest == row["digest_sha256"]
    if not archived:
        assert await trial.database.fetchval(
            "SELECT count(*) FROM operations WHERE business_date = $1", day
        ) == (OPERATIONS)
    return not archived


def has_file(trial: Trial, day: date, table: str, suffix: str) -> Condition:
    path = trial.directory / f"{table}_{day:%Y%m%d}.1.parquet{suffix}"

    async def exists() -> bool:
        return path.exists() and path.stat().st_size > 0

    return exists


def has_session(trial: Trial, query: str) -> Condition:
    async def runs() -> bool:
        return bool(await trial.database.fetchval(RUNS, query))

    return runs


@pytest.mark.parametrize(
    ("days", "table", "suffix"),
    [(1, "operations", UNFINISHED), (2, "operations", ""), (3, "postings", UNFINISHED), (4, "postings", "")],
)
async def test_archiving_killed_at_a_file_leaves_the_date_and_is_run_again(
    trial: Trial, days: int, table: str, suffix: str
) -> None:
    day = trial.ago(OPERATIONS_DAYS + days)
    await trial.fill(day, operations=OPERATIONS)
    balances = await trial.balances()
    # A reader keeps the partitions, so that the kill comes before the commit whatever the machine's speed.
    reader = await asyncpg.connect(trial.dsn)
    reading = reader.transaction()
    await reading.start()
    await reader.fetch("SELECT 1 FROM operations LIMIT 1")
    await Onecard(trial, "run").killed_when(has_file(trial, day, table, suffix))
    await reading.rollback()
    await reader.close()
    assert await settled(trial, day, balances)
    assert "1 archived, 0 stay" in await Onecard(trial, "run").ends_well()
    assert not await settled(trial, day, balances)
    assert not [name for name in trial.files() if name.endswith(UNFINISHED)]


async def test_archiving_killed_while_it_waits_to_drop_leaves_the_date(trial: Trial) -> None:
    day = trial.ago(OPERATIONS_DAYS + 5)
    await trial.fill(day, operations=OPERATIONS)
    balances = await trial.balances()
    reader = await asyncpg.connect(trial.dsn)
    reading = reader.transaction()
    await reading.start()
    await reader.fetch("SELECT 1 FROM operations LIMIT 1")
    await Onecard(trial, "run").killed_when(has_session(trial, "drop_partitions"))
    await reading.rollback()
    await reader.close()
    assert await settled(trial, day, balances)
    await Onecard(trial, "run").ends_well()
    assert not await settled(trial, day, balances)


async def test_archiving_and_restoring_killed_at_random_lose_nothing(
    trial: Trial, rng: random.Random
) -> None:
    day = trial.ago(OPERATIONS_DAYS + 6)
    await trial.fill(day, operations=OPERATIONS)
    balances = await trial.balances()
    rows = await trial.rows("operations", day)
    is_online = True
    for _ in range(RANDOM_KILLS):
        command = ("run",) if is_online else ("restore", "--date", f"{day:%Y%m%d}")
        onecard = Onecard(trial, *command)
        await asyncio.sleep(rng.uniform(0.5, 4.0))
        onecard.kill()
        is_online = await settled(trial, day, balances)
    if is_online:
        await Onecard(trial, "run").ends_well()
        assert not await settled(trial, day, balances)
    await Onecard(trial, "restore", "--date", f"{day:%Y%m%d}").ends_well()
    assert await settled(trial, day, balances)
    assert await trial.rows("operations", day) == rows


async def test_restoring_killed_while_it_loads_leaves_nothing_and_is_run_again(trial: Trial) -> None:
    day = trial.ago(OPERATIONS_DAYS + 7)
    await trial.fill(day, operations=OPERATIONS)
    balances = await trial.balances()
    rows = await trial.rows("operations", day)
    await Onecard(trial, "run").ends_well()
    assert not await settled(trial, day, balances)
    restore = ("restore", "--date", f"{day:%Y%m%d}")
    await Onecard(trial, *restore).killed_when(has_session(trial, "^COPY"))
    assert not await settled(trial, day, balances)
    assert "is online again" in await Onecard(trial, *restore).ends_well()
    assert await settled(trial, day, balances)
    assert await trial.rows("operations", day) == rows
