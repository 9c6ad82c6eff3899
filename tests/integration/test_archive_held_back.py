"""Archives: a date stays in the database while anything still needs it, or anything goes wrong with its files."""

from typing import Any

import asyncpg
import pytest
from archive_trial import OLD, Trial

from server.archive import archiving, parquet_file
from server.archive.errors import ArchiveError, HeldBackError
from server.archive.record import sole_connection
from server.archive.tables import TABLES


async def reason_of(trial: Trial, business_date: Any) -> str:
    """Why a date does not go."""
    with pytest.raises(ArchiveError) as refused:
        async with sole_connection(trial.dsn) as connection:
            await archiving.archive_date(connection, business_date, trial.policy)
    assert await trial.is_online(business_date)
    assert await trial.database.fetchval("SELECT count(*) FROM archives") == 0
    return refused.value.message


async def test_date_that_is_still_looked_up_stays(trial: Trial) -> None:
    # 72 hours, and a day because a business date begins on the evening before.
    await trial.fill(trial.ago(4), operations=10)
    assert "still looked up" in await reason_of(trial, trial.ago(4))
    await trial.fill(trial.ago(5), operations=10)
    async with sole_connection(trial.dsn) as connection:
        await archiving.archive_date(connection, trial.ago(5), trial.policy)
    assert not await trial.is_online(trial.ago(5))


async def test_date_with_a_pending_hold_stays_until_it_ends(trial: Trial) -> None:
    day = trial.ago(OLD)
    await trial.fill(day, operations=10)
    await trial.database.execute(
        "INSERT INTO holds (hold_id, shard, card_id, account_id, state, authorized_minor, held_minor, expires_at)"
        " SELECT operation_id, shard, card_id, account_id, 1, 5, 5, now() FROM operations"
        " WHERE business_date = $1 LIMIT 1",
        day,
    )
    assert "hold" in await reason_of(trial, day)
    await trial.database.execute("UPDATE holds SET state = 5, held_minor = 0")
    assert len(await trial.archive()) == 1


async def test_date_with_events_without_a_number_stays(trial: Trial) -> None:
    day = trial.ago(OLD)
    await trial.fill(day, operations=10, settled=False)
    await trial.database.execute(
        "INSERT INTO event_batches (first_operation_id, last_operation_id, operation_count, business_date, decided_at,"
        " shard) SELECT operation_id, operation_id, 1, business_date, decided_at, shard FROM operations"
        " WHERE business_date = $1 LIMIT 1",
        day,
    )
    await trial.settle(day)
    assert "no number" in await reason_of(trial, day)
    await trial.database.execute("UPDATE event_batches SET sequence = 1")
    assert len(await trial.archive()) == 1
    # They stay: the event feed shows by them what is archived.
    assert await trial.database.fetchval("SELECT count(*) FROM event_batches") == 1


async def test_date_that_is_not_settled_stays(trial: Trial) -> None:
    day = trial.ago(OLD)
    await trial.fill(day, operations=10, settled=False)
    assert "settlement" in await reason_of(trial, day)
    await trial.settle(day)
    assert len(await trial.archive()) == 1


async def test_without_settlement_every_date_may_go(trial: Trial) -> None:
    await trial.fill(trial.ago(OLD), operations=10, settled=False)
    await trial.database.execute("DROP TABLE made_days")
    assert len(await trial.archive()) == 1


async def test_table_with_a_column_that_archives_do_not_know_stays(trial: Trial) -> None:
    day = trial.ago(OLD)
    await trial.fill(day, operations=10)
    await trial.database.execute("ALTER TABLE postings ADD COLUMN colour text")
    assert "other columns" in await reason_of(trial, day)


async def test_date_somebody_writes_into_stays(trial: Trial) -> None:
    day = trial.ago(OLD)
    await trial.fill(day, operations=10)
    writer = await asyncpg.connect(trial.dsn)
    transaction = writer.transaction()
    await transaction.start()
    await writer.execute("INSERT INTO postings VALUES (1, 1000000, 7, 1, $1, 1, 0)", day)
    assert "writes into it" in await reason_of(trial, day)
    await transaction.rollback()
    await writer.close()


@pytest.mark.parametrize("table", [table.name for table in TABLES])
async def test_date_whose_file_comes_out_wrong_stays(
    trial: Trial, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives back other bytes than it was given, told by reading the file again."""
    day = trial.ago(OLD)
    await trial.fill(day, operations=200)
    finish = parquet_file.ArchiveWriter.finish

    def finish_on_a_bad_disk(writer: Any) -> Any:
        sums = finish(writer)
        path = trial.directory / f"{table}_{day:%Y%m%d}.1.parquet"
        if path.exists():
            content = bytearray(path.read_bytes())
            content[300] ^= 0xFF
            path.write_bytes(content)
        return sums

    monkeypatch.setattr(parquet_file.ArchiveWriter, "finish", finish_on_a_bad_disk)
    message = await reason_of(trial, day)
    assert "damaged" in message or "not equal" in message
    monkeypatch.undo()
    # What is left of the attempt is in nobody's way.
    (done,) = await trial.archive()
    assert done.generation == 1


async def test_one_date_that_stays_does_not_stop_the_next(trial: Trial) -> None:
    for days in (OLD, OLD + 1):
        await trial.fill(trial.ago(days), operations=10)
    await trial.database.execute(
        "INSERT INTO holds (hold_id, shard, card_id, account_id, state, authorized_minor, held_minor, expires_at)"
        " SELECT operation_id, shard, card_id, account_id, 1, 5, 5, now() FROM operations"
        " WHERE business_date = $1 LIMIT 1",
        trial.ago(OLD + 1),
    )
    stayed, done = await trial.archive()
    assert stayed[0] == trial.ago(OLD + 1)
    assert isinstance(stayed[1], HeldBackError)
    assert done.business_date == trial.ago(OLD)


async def test_what_the_disk_or_the_database_refuses_is_told_of_the_date(trial: Trial) -> None:
    day = trial.ago(OLD)
    await trial.fill(day, operations=10)
    trial.directory.write_text("a file in its place")
    ((_, refused),) = await trial.archive()
    assert (refused.reason, refused.message) == (
        "ARCHIVE_FILE_FAILED",
        "the files cannot be used: File exists",
    )
    trial.directory.unlink()
    await trial.database.execute("ALTER TABLE archives ADD CONSTRAINT archives_test CHECK (row_count = 0)")
    ((_, refused),) = await trial.archive()
    assert refused.reason == "ARCHIVE_DATABASE_REFUSED"
    assert "CheckViolationError (23514)" in refused.message
    assert await trial.is_online(day)
    await trial.database.execute("ALTER TABLE archives DROP CONSTRAINT archives_test")
    assert len(await trial.archive()) == 1


async def test_two_do_not_archive_at_once(trial: Trial) -> None:
    async with sole_connection(trial.dsn):
        with pytest.raises(ArchiveError, match="another process"):
            await trial.archive()
