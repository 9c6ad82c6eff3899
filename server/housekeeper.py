"""The housekeeper: periodic work that must run once, however many instances share a database.

Elected by an advisory lock of one session: whoever holds it works, the others ask again. A job that fails is
counted, logged and tried at its next turn; it never ends the process, and never delays another job.
"""

import asyncio
import contextlib
import datetime
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from server import telemetry
from server.archive import archiving
from server.archive.errors import ArchiveError
from server.authorization.expiry import expire_holds
from server.database import pool as database_pool
from server.database.statements import load
from server.engine.business_calendar import BusinessCalendar
from server.errors import DatabaseUnavailableError
from server.key_calls import KeyCalls
from server.key_stores import open_store
from server.keys import upkeep
from server.keys.execution import AdministeredKeys
from server.settings import Settings
from server.settlement import closing, positions, sequencer
from server.workers import run_child

log = logging.getLogger(__name__)

ELECTION_LOCK_KEY = 0x6F6E656361726402  # "onecard" and 2; 1 is the migrations'
ELECTION_PAUSE_S = 2.0
LEADER_CHECK_S = 1.0
JOB_TIMEOUT_S = 300.0
FAILED_PAUSE_MAX_S = 30.0
# A date of a whole province is some ten million rows.
ARCHIVE_TIMEOUT_S = 6 * 3_600.0
CONNECTIONS_MAX = 6
DELETED_PER_STATEMENT = 5_000
PARTITION_DAYS_BACK = 1
# Each coming partition is searched for every request id, so no more of them than a long weekend without us needs.
PARTITION_DAYS_AHEAD = 3


@dataclass(frozen=True)
class Job:
    """Periodic work: first run on election, then ``period_s`` after the end of the run before."""

    name: str
    period_s: float
    run: Callable[["asyncpg.Pool[Any]"], Awaitable[None]]
    timeout_s: float = JOB_TIMEOUT_S


async def delete_expired_spent_tokens(pool: "asyncpg.Pool[Any]") -> None:
    """Forgets one-time codes that have expired and so could not be spent again anyway."""
    statement = load("server.database")["delete_expired_spent_tokens"]
    deleted = DELETED_PER_STATEMENT
    while deleted == DELETED_PER_STATEMENT:  # in portions: one long statement would hold the rows' locks
        async with database_pool.acquired(pool) as connection:
            deleted = await connection.fetchval(statement, DELETED_PER_STATEMENT)


async def create_partitions(pool: "asyncpg.Pool[Any]") -> None:
    """Makes the partitions of the coming business days, long before the first operation falls into one."""
    statement = load("server.database")["ensure_partitions"]
    days = PARTITION_DAYS_BACK + 1 + PARTITION_DAYS_AHEAD
    # A day back covers every time zone the business day may be in.
    first = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=PARTITION_DAYS_BACK)
    async with database_pool.acquired(pool) as connection:
        await connection.execute(statement, first, days)


JOBS: tuple[Job, ...] = (
    Job("create_partitions", 3_600, create_partitions),
    Job("delete_expired_spent_tokens", 30, delete_expired_spent_tokens),
    Job("expire_holds", 5, expire_holds),
    Job("expire_key_proposals", 60, upkeep.expire_proposals),
    Job("sequence_events", sequencer.IDLE_PERIOD_S, sequencer.keep_sequencing),
    Job("sequence_stragglers", 60, sequencer.sequence_stragglers),
    Job("roll_up_positions", 1, positions.roll_up),
)


def key_jobs(settings: Settings) -> tuple[Job, ...]:
    """The jobs that need the key store; it is opened at their first run, so that its absence stops no other job."""
    opened: list[AdministeredKeys] = []

    def keys() -> AdministeredKeys:
        if not opened:
            key_store = open_store(settings)
            opened.append(AdministeredKeys(key_store, KeyCalls(key_store)))
        return opened[0]

    async def finish_approved(pool: "asyncpg.Pool[Any]") -> None:
        await upkeep.finish_approved(pool, keys())

    async def destroy_due_keys(pool: "asyncpg.Pool[Any]") -> None:
        await upkeep.destroy_due_keys(pool, keys())

    return (
        Job("finish_key_changes", 60, finish_approved),
        Job("destroy_due_keys", 60, destroy_due_keys),
    )


def settlement_jobs(settings: Settings) -> tuple[Job, ...]:
    """The job that needs the calendar and a place for files."""
    calendar = BusinessCalendar.of(time_zone=settings.time_zone, cutoff=settings.business_day_cutoff)
    close = closing.closing_job(calendar, settings.settlement_dir, settings.database_dsn)
    return (Job("close_days", 20, close, timeout_s=closing.COPY_TIMEOUT_S),)


def archive_jobs(settings: Settings) -> tuple[Job, ...]:
    """The job that moves old business dates into files; it works on a connection of its own."""

    async def archive_partitions(_pool: "asyncpg.Pool[Any]") -> None:
        failed = 0
        async for result in archiving.archive_due(settings.database_dsn, archiving.policy_of(settings)):
            match result:
                case archiving.ArchivedDate():
                    log.info("business date archived", extra={"business_date": str(result.business_date)})
                case business_date, error:
                    failed += 1
                    log.warning(
                        "business date stays: %s", error.message, extra={"business_date": str(business_date)}
                    )
        if failed:
            raise ArchiveError("ARCHIVE_INCOMPLETE", f"{failed} business dates stay")

    return (Job("archive_partitions", 3_600, archive_partitions, timeout_s=ARCHIVE_TIMEOUT_S),)


async def run_jobs(pool: "asyncpg.Pool[Any]", jobs: tuple[Job, ...]) -> None:
    """Runs every job at its period until cancelled."""
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(_repeat(job, pool), name=job.name)


async def _repeat(job: Job, pool: "asyncpg.Pool[Any]") -> None:
    failures = 0
    while True:
        try:
            async with asyncio.timeout(job.timeout_s):
                await job.run(pool)
        except Exception as error:  # a failing job must not take the others with it
            telemetry.housekeeping_counter(job.name, "failed").inc()
            log.error("housekeeping job failed", extra={"job": job.name}, exc_info=error)
            failures += 1
        else:
            failures = 0
            telemetry.housekeeping_counter(job.name, "succeeded").inc()
        await asyncio.sleep(pause_s(job, failures))


def pause_s(job: Job, failures: int) -> float:
    """Seconds until the next run, after so many failures in a row: what runs often fails at most every half minute."""
    backoff = min(FAILED_PAUSE_MAX_S, 0.5 * 2 ** min(failures, 10)) if failures else 0.0
    return max(job.period_s, backoff)


async def _work_while_elected(settings: Settings, pool: "asyncpg.Pool[Any]", jobs: tuple[Job, ...]) -> None:
    """Returns when another instance is elected; works as long as our session holds the lock.

    Raises:
        DatabaseUnavailableError: the session is lost, and the lock with it.
    """
    with database_pool.database_errors():
        session = await asyncpg.connect(
            settings.database_dsn,
            timeout=database_pool.CONNECT_TIMEOUT_S,
            command_timeout=10,
            server_settings={"application_name": "onecard housekeeper election"},
        )
        try:
            if not await session.fetchval("SELECT pg_try_advisory_lock($1)", ELECTION_LOCK_KEY):
                return
            log.info("elected as housekeeper")
            work = asyncio.create_task(run_jobs(pool, jobs))
            try:
                while True:
                    await asyncio.sleep(LEADER_CHECK_S)
                    await session.fetchval("SELECT 1")
            finally:
                # Before the lock can pass to another: two housekeepers must not run a job at once.
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work
        finally:
            session.terminate()


async def keep_house(settings: Settings, jobs: tuple[Job, ...] = JOBS) -> None:
    """Stands for election again and again until cancelled."""
    pool = await database_pool.open_pool(
        settings,
        settings.database_dsn,
        application_name="onecard housekeeper",
        connections_max=CONNECTIONS_MAX,
    )
    try:
        while True:
            try:
                await _work_while_elected(settings, pool, jobs)
            except DatabaseUnavailableError:
                log.warning("housekeeper waits for the database")
            except Exception as error:
                log.error("housekeeper was interrupted", exc_info=error)
            await asyncio.sleep(ELECTION_PAUSE_S)
    finally:
        pool.terminate()


async def run(settings: Settings, _index: int, ready: Callable[[], None]) -> None:
    """The housekeeper process: works until SIGTERM; a job cut off is rolled back and runs again."""
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    jobs = JOBS + key_jobs(settings) + settlement_jobs(settings) + archive_jobs(settings)
    work = asyncio.create_task(keep_house(settings, jobs))
    ready()
    await asked_to_stop.wait()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


if __name__ == "__main__":
    run_child(run)
