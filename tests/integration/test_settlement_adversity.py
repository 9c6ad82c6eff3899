"""Settlement when something is wrong: with one participant, a file, an archived date, or how long a statement takes."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner
from settlement_site import Move, Site
from test_settlement_closing import CALENDAR, TODAY, YESTERDAY, busy_day, closed

from server.cli import main
from server.database import pool as database_pool
from server.database.embedded import EmbeddedPostgres
from server.errors import StateConflictError
from server.housekeeper import FAILED_PAUSE_MAX_S, JOBS, pause_s
from server.settlement.closing import closing_job
from server.settlement.closing_day import close_day
from server.settlement.closing_store import ClosingFile
from server.settlement.positions import roll_up_step
from server.settlement.reconcile import reconcile


async def test_participant_whose_closing_fails_holds_up_no_other_and_no_later_date(
    site: Site, data_dir: Path
) -> None:
    await busy_day(site)
    lane = await site.lane()
    await lane.write([Move(card_id=2, participant_id="bank-02")], business_date=TODAY)
    for day in (YESTERDAY, TODAY):
        assert await close_day(site.database, day)
    await site.database.execute(
        "CREATE TRIGGER broken BEFORE INSERT ON closings FOR EACH ROW"
        " WHEN (NEW.participant_id = 'bank-01') EXECUTE FUNCTION refuse_change()"
    )
    pool = await asyncpg.create_pool(site.dsn, min_size=1, max_size=2)
    job = closing_job(CALENDAR, data_dir / "settlement", site.dsn)
    made = "SELECT participant_id, business_date FROM closings ORDER BY business_date, participant_id"
    with pytest.raises(StateConflictError, match="2 business dates"):
        await job(pool)
    assert [tuple(row) for row in await pool.fetch(made)] == [("bank-02", YESTERDAY), ("bank-02", TODAY)]
    await site.database.execute("DROP TRIGGER broken ON closings")
    await job(pool)
    assert len(await pool.fetch(made)) == 4
    await pool.close()


async def test_archived_date_is_told_as_such_and_is_no_alarm(site: Site, data_dir: Path) -> None:
    await busy_day(site)
    folder = await closed(site, data_dir)
    for table in ("operations", "postings"):
        await site.database.execute(f"DROP TABLE {table}_{YESTERDAY:%Y%m%d}")

    async def onecard(*arguments: str) -> tuple[int, str]:
        places = ["--dsn", site.dsn, "--data-dir", str(data_dir)]
        result = await asyncio.to_thread(CliRunner().invoke, main, ["settlement", *arguments, *places])
        return result.exit_code, result.output

    await site.database.execute("INSERT INTO database_facts VALUES ('time_zone', 'UTC')")
    await site.database.execute("INSERT INTO database_facts VALUES ('business_day_cutoff', '23:59')")
    code, output = await onecard("verify", str(data_dir / "settlement"))
    assert (code, output.count("right; its operations are archived")) == (0, 2)
    code, output = await onecard("close", "--date", f"{YESTERDAY:%Y%m%d}")
    assert (code, output.count(" archived\n")) == (0, 2), output
    shutil.rmtree(folder / "bank-01")
    code, output = await onecard("close", "--date", f"{YESTERDAY:%Y%m%d}")
    assert code == 1
    assert "restore the archive first (CLOSING_ARCHIVED)" in output
    assert not (folder / "bank-01").exists()


async def test_files_of_closings_are_for_their_owner_only(site: Site, data_dir: Path) -> None:
    await busy_day(site)
    folder = await closed(site, data_dir)
    places = [data_dir / "settlement", folder, *folder.iterdir()]
    assert {place.stat().st_mode & 0o777 for place in places} == {0o700}
    files = [folder / "bank-01" / file for file in ClosingFile]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def test_roll_up_goes_on_in_smaller_steps_when_a_statement_takes_too_long(site: Site) -> None:
    lane = await site.lane()
    for _ in range(9):
        await lane.write([Move(card_id=2)])
    await site.database.fetchval("SELECT sequence_events(100)")
    await site.database.execute(
        "CREATE FUNCTION too_long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'too long' USING ERRCODE = 'query_canceled'; END $$"
    )
    await site.database.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON settlement_days FOR EACH ROW"
        " WHEN (NEW.event_count > 7) EXECUTE FUNCTION too_long()"
    )
    assert await roll_up_step(lane.connection) == 7
    assert await roll_up_step(lane.connection) == 2
    await lane.write([Move(card_id=2)] * 8)
    await site.database.fetchval("SELECT sequence_events(100)")
    with pytest.raises(asyncpg.QueryCanceledError):
        await roll_up_step(lane.connection)


async def test_proof_keeps_the_dates_of_its_snapshot(site: Site) -> None:
    await (await site.lane()).write([Move(card_id=2)])
    held = (
        "SELECT count(DISTINCT c.relname) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation"
        " JOIN pg_stat_activity AS a ON a.pid = l.pid WHERE a.application_name = 'onecard reconcile'"
        " AND l.granted AND c.relkind = 'r' AND c.relname ~ '^(operations|postings)_[0-9]{8}$'"
    )
    blocker = (await site.lane()).connection
    async with blocker.transaction():
        # What the proof reads first.
        await blocker.execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        proof = asyncio.create_task(reconcile(site.dsn))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'accounts'::regclass"
        async with asyncio.timeout(10):
            while not await site.database.fetchval(waits):  # noqa: ASYNC110 - a row, not an event
                await asyncio.sleep(0.02)
        partitions = await site.database.fetchval(
            "SELECT count(*) FROM pg_inherits WHERE inhparent IN ('operations'::regclass, 'postings'::regclass)"
        )
        assert await site.database.fetchval(held) == partitions
    assert (await proof).clean


async def test_long_work_has_no_timeouts_of_the_database(site: Site) -> None:
    name = await site.database.fetchval("SELECT current_database()")
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        await site.database.execute(f"ALTER DATABASE {name} SET {setting} = '1s'")
    connection = await database_pool.connect(site.dsn)
    assert await connection.fetchval("SHOW statement_timeout") == "0"
    assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "0"
    await connection.close()


async def test_session_that_does_not_report_leaves_the_oldest_transaction_unknown(
    site: Site, postgres: EmbeddedPostgres
) -> None:
    assert await site.database.fetchval("SELECT oldest_transaction_start()") is not None
    name = await site.database.fetchval("SELECT current_database()")
    superuser = await asyncpg.connect(postgres.dsn(user="postgres", database="postgres"))
    await superuser.execute(f"ALTER ROLE onecard IN DATABASE {name} SET track_activities = off")
    silent = await asyncpg.connect(site.dsn)
    assert await site.database.fetchval("SELECT oldest_transaction_start()") is None
    await silent.close()
    await superuser.close()


def test_housekeeper_runs_without_pyarrow_until_it_writes_files() -> None:
    program = "import sys, server.housekeeper; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == 0


def test_job_that_fails_comes_again_more_and_more_rarely() -> None:
    job = next(job for job in JOBS if job.name == "sequence_events")
    pauses = [pause_s(job, failures) for failures in range(40)]
    assert pauses[0] == job.period_s < pauses[1]
    assert pauses == sorted(pauses)
    assert pauses[-1] == FAILED_PAUSE_MAX_S
