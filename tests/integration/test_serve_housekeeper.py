"""The housekeeper: one at a time, and no failure ends it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest_asyncio

from server.database.embedded import EmbeddedPostgres
from server.housekeeper import Job, keep_house
from server.settings import Settings

WAIT_S = 15.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is plain state of the test
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def start(postgres: EmbeddedPostgres) -> AsyncIterator[Callable[..., "asyncio.Task[None]"]]:
    """Starts housekeepers with jobs of the test."""
    settings = Settings(socket_dir=postgres.socket_dir)
    tasks: list[asyncio.Task[None]] = []

    def begin(*jobs: Job) -> "asyncio.Task[None]":
        tasks.append(asyncio.create_task(keep_house(settings, jobs)))
        return tasks[-1]

    yield begin
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def job(name: str, runs: list[str], *, fails: bool = False) -> Job:
    async def run(_pool: "asyncpg.Pool[Any]") -> None:
        runs.append(name)
        if fails:
            raise RuntimeError(name)

    return Job(name, 0.05, run)


async def test_of_two_housekeepers_one_works_until_it_ends(start: Callable[..., Any]) -> None:
    runs: list[str] = []
    first = start(job("first", runs))
    await until(lambda: "first" in runs)
    start(job("second", runs))
    await asyncio.sleep(0.5)
    assert "second" not in runs
    first.cancel()
    await until(lambda: "second" in runs)
    assert runs.index("second") == len([name for name in runs if name == "first"])


async def test_failing_job_is_tried_again_and_delays_no_other(start: Callable[..., Any]) -> None:
    runs: list[str] = []
    start(job("bad", runs, fails=True), job("good", runs))
    await until(lambda: runs.count("bad") > 2 and runs.count("good") > 2)


async def test_lost_session_ends_the_work_until_elected_again(
    start: Callable[..., Any], postgres: EmbeddedPostgres
) -> None:
    runs: list[str] = []
    start(job("only", runs))
    await until(lambda: bool(runs))
    admin = await asyncpg.connect(postgres.dsn(user="postgres"))
    ended = await admin.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'onecard housekeeper election'"
    )
    await admin.close()
    assert ended == 1
    await asyncio.sleep(1.5)
    seen = len(runs)
    await until(lambda: len(runs) > seen)
