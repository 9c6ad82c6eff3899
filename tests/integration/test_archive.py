"""Archives: what leaves the database is proved to be in a file first, and nothing that is needed leaves."""

import hashlib
import json
import os
from pathlib import Path

import asyncpg
import pyarrow.parquet as pq
import pytest
from archive_trial import OLD, OPERATIONS_DAYS, Trial

from server.archive import archiving, parquet_file
from server.archive.errors import ArchiveError
from server.archive.restoring import restore_date, restore_file
from server.archive.tables import OPERATIONS, TABLES
from server.engine.operation import OperationKind
from server.settlement.reconcile import reconcile


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several row groups out of few rows."""
    monkeypatch.setattr(parquet_file, "ROWS_PER_GROUP", 70)


@pytest.mark.usefixtures("small_groups")
async def test_archived_date_is_in_files_and_its_sums_in_the_database(trial: Trial) -> None:
    day, young = trial.ago(OLD), trial.ago(OPERATIONS_DAYS)
    for date in (day, young):
        await trial.fill(date, operations=300)
    before = await trial.balances()
    (done,) = await trial.archive()
    assert (done.business_date, done.generation) == (day, 1)
    assert not await trial.is_online(day)
    assert await trial.is_online(young)
    assert await trial.balances() == before
    assert trial.files() == [f"{table}_{day:%Y%m%d}.1.parquet" for table in ("operations", "postings")]
    archived = await trial.database.fetch("SELECT * FROM archives ORDER BY table_name")
    assert [(row["table_name"], row["row_count"]) for row in archived] == [
        ("operations", 300),
        ("postings", 300),
    ]
    for row in archived:
        path = trial.directory / row["file_name"]
        assert row["file_bytes"] == path.stat().st_size
        assert path.stat().st_mode & 0o077 == 0
    assert await trial.database.fetchval("SELECT sum(amount_minor) FROM archived_balances") == 0
    assert await trial.archive() == []


@pytest.mark.usefixtures("small_groups")
async def test_file_is_read_without_us_and_its_digest_is_as_documented(trial: Trial) -> None:
    day = trial.ago(OLD)
    await trial.fill(day, operations=300)
    live = await trial.rows("operations", day)
    await trial.archive()
    file = pq.ParquetFile(trial.directory / f"operations_{day:%Y%m%d}.1.parquet")
    assert file.num_row_groups == 5
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    rows = file.read().to_pylist()
    assert len(rows) == len(live)
    for row, was in zip(rows, live, strict=True):
        assert row == {**dict(was), "request_id": str(was["request_id"])}
    facts = {key.decode(): value.decode() for key, value in file.metadata.metadata.items()}
    digest = hashlib.sha256()
    for was in live:
        values = {
            **dict(was),
            "request_id": str(was["request_id"]),
            "decided_at": round(was["decided_at"].timestamp() * 1_000_000),
            "business_date": (was["business_date"] - archiving.date(1970, 1, 1)).days,
            "request_digest": was["request_digest"].hex(),
            "response": was["response"].hex(),
            "switch_key": was["switch_key"].hex() if was["switch_key"] else None,
        }
        line = json.dumps(
            [values[name] for name in file.schema_arrow.names], separators=(",", ":"), ensure_ascii=False
        )
        digest.update(line.encode() + b"\n")
    assert facts["onecard.digest_sha256"] == digest.hexdigest()
    assert facts["onecard.table"] == "operations"
    assert facts["onecard.business_date"] == str(day)
    assert facts["onecard.schema_version"] == "1"
    assert facts["onecard.row_count"] == "300"
    assert int(facts["onecard.amount_minor"]) == sum(was["amount_minor"] or 0 for was in live)


@pytest.mark.usefixtures("small_groups")
async def test_restored_date_is_the_same_and_can_be_archived_again(trial: Trial) -> None:
    day = trial.ago(OLD)
    await trial.fill(day, operations=300)
    before = await trial.balances()
    live = [await trial.rows(table.name, day) for table in TABLES]
    await trial.archive()
    with pytest.raises(ArchiveError, match="never archived"):
        await restore_date(trial.dsn, directory=trial.directory, business_date=trial.today)
    await restore_date(trial.dsn, directory=trial.directory, business_date=day)
    assert [await trial.rows(table.name, day) for table in TABLES] == live
    assert await trial.balances() == before
    assert (
        await trial.database.fetchval("SELECT count(*) FROM archived_balances WHERE amount_minor <> 0") == 0
    )
    # It has its guards and its indexes again.
    for statement in ("DELETE FROM operations", f"TRUNCATE postings_{day:%Y%m%d}"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await trial.database.execute(statement)
    duplicate = f"INSERT INTO postings SELECT * FROM postings WHERE business_date = '{day}' LIMIT 1"
    with pytest.raises(asyncpg.UniqueViolationError):
        await trial.database.execute(duplicate)
    with pytest.raises(ArchiveError, match="is online"):
        await restore_date(trial.dsn, directory=trial.directory, business_date=day)
    (again,) = await trial.archive()
    assert again.generation == 2
    assert await trial.balances() == before
    assert len(trial.files()) == 4
    # Either generation has the same rows; the latest counts.
    digests = await trial.database.fetch("SELECT count(*) FROM archives GROUP BY digest_sha256")
    assert [row[0] for row in digests] == [2, 2]
    first = trial.directory / f"operations_{day:%Y%m%d}.1.parquet"
    with pytest.raises(ArchiveError, match="generation 2 counts"):
        await restore_file(trial.dsn, path=first)
    await restore_file(trial.dsn, path=first.with_name(first.name.replace(".1.", ".2.")))
    assert await trial.is_online(day)


async def test_date_without_rows_is_archived_and_restored_too(trial: Trial) -> None:
    day = trial.ago(OLD)
    await trial.fill(day, operations=0)
    (done,) = await trial.archive()
    assert {sums.row_count for sums in done.sums.values()} == {0}
    await restore_date(trial.dsn, directory=trial.directory, business_date=day)
    assert await trial.is_online(day)


async def test_restore_refuses_what_was_not_recorded(trial: Trial) -> None:
    days = [trial.ago(OLD), trial.ago(OLD + 1)]
    for day in days:
        await trial.fill(day, operations=50)
    await trial.archive()
    ours, others = (trial.directory / f"operations_{day:%Y%m%d}.1.parquet" for day in days)

    async def refusal() -> str:
        with pytest.raises(ArchiveError) as refused:
            await restore_file(trial.dsn, path=ours)
        assert not await trial.is_online(days[0])
        return refused.value.reason

    kept = ours.read_bytes()
    ours.write_bytes(others.read_bytes())
    assert await refusal() == "ARCHIVE_FILE_WRONG"
    ours.write_bytes(kept[: len(kept) // 2])
    assert await refusal() == "ARCHIVE_FILE_WRONG"
    # A file of the same date with other rows, whole and well-formed.
    writer = parquet_file.ArchiveWriter(ours, OPERATIONS, business_date=days[0])
    reader = parquet_file.ArchiveReader(others)
    writer.append(reader.group(0))
    writer.finish()
    assert await refusal() == "ARCHIVE_VERIFICATION_FAILED"
    ours.unlink()
    assert await refusal() == "ARCHIVE_FILE_MISSING"
    ours.write_bytes(kept)
    await restore_file(trial.dsn, path=ours)
    assert await trial.is_online(days[0])


async def test_records_of_archives_cannot_be_changed(trial: Trial) -> None:
    await trial.fill(trial.ago(OLD), operations=10)
    await trial.archive()
    for table in ("archives", "archive_events", "archived_balances"):
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(asyncpg.RestrictViolationError):
                await trial.database.execute(statement)
    for table in ("archives", "archive_events"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await trial.database.execute(f"UPDATE {table} SET generation = 9")


def test_unfinished_file_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "operations_20260101.1.parquet"
    left = path.with_name(path.name + parquet_file.UNFINISHED)
    left.write_bytes(b"half")
    os.chmod(left, 0o644)
    writer = parquet_file.ArchiveWriter(path, OPERATIONS, business_date=archiving.date(2026, 1, 1))
    writer.finish()
    assert not left.exists()
    assert parquet_file.read_sums(path).row_count == 0


async def test_books_agree_when_what_was_undone_is_archived_and_what_undid_it_is_not(trial: Trial) -> None:
    """An increment of a hold just before midnight, reversed just after: neither moved money."""
    undone, undoing = trial.ago(OPERATIONS_DAYS + 1), trial.ago(OPERATIONS_DAYS)
    await trial.database.execute("SELECT ensure_partitions($1, 2)", undone)
    insert = (
        "INSERT INTO operations (operation_id, request_id, decided_at, business_date, shard, operation_kind, reason,"
        " participant_id, terminal_id, response_code, request_digest, response, approved_minor, original_operation_id)"
        " VALUES ($1, gen_random_uuid(), now(), $2, 0, $3, 1, 'bank-01', 'T', '00', '', '', 5, $4)"
    )
    await trial.database.execute(insert, 20_001, undone, OperationKind.INCREMENT, 20_000)
    await trial.database.execute(insert, 30_001, undoing, OperationKind.REVERSAL, 20_001)
    await trial.settle(undone)
    assert (await reconcile(trial.dsn)).approved_without_posting == 0
    assert len(await trial.archive()) == 1
    assert (await reconcile(trial.dsn)).approved_without_posting == 0
    # One that undoes something that is online, and should have moved money, is still found.
    await trial.database.execute(insert, 30_002, undoing, OperationKind.PURCHASE, None)
    await trial.database.execute(insert, 30_003, undoing, OperationKind.REVERSAL, 30_002)
    assert (await reconcile(trial.dsn)).approved_without_posting == 2


async def test_books_agree_when_a_date_is_restored_alone(trial: Trial) -> None:
    """A purchase, and its refund of the next day: only the first comes back."""
    bought, refunded = trial.ago(OPERATIONS_DAYS + 2), trial.ago(OPERATIONS_DAYS + 1)
    await trial.database.execute("SELECT ensure_partitions($1, 2)", bought)
    insert = (
        "INSERT INTO operations (operation_id, request_id, decided_at, business_date, shard, operation_kind, reason,"
        " participant_id, terminal_id, response_code, request_digest, response, approved_minor, original_operation_id)"
        " VALUES ($1, gen_random_uuid(), now(), $2, 0, $3, 1, 'bank-01', 'T', '00', '', '', 5, $4)"
    )
    await trial.database.execute(insert, 20_001, bought, OperationKind.PURCHASE, None)
    await trial.database.execute(insert, 30_001, refunded, OperationKind.REFUND, 20_001)
    await trial.database.execute(
        "INSERT INTO adjustments (operation_id, shard, approved_minor, refunded_minor) VALUES (20001, 0, 5, 5)"
    )
    for date in (bought, refunded):
        await trial.settle(date)
    assert (await reconcile(trial.dsn)).adjustments_wrong == 0
    assert len(await trial.archive()) == 2
    await restore_date(trial.dsn, directory=trial.directory, business_date=bought)
    assert (await reconcile(trial.dsn)).adjustments_wrong == 0
    await restore_date(trial.dsn, directory=trial.directory, business_date=refunded)
    assert (await reconcile(trial.dsn)).adjustments_wrong == 0
    await trial.database.execute("UPDATE adjustments SET refunded_minor = 4")
    assert (await reconcile(trial.dsn)).adjustments_wrong == 1
