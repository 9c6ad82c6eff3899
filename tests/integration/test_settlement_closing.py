"""Closing: a date is closed once and stays; its files are whole, reproducible and prove themselves."""

import asyncio
import csv
import datetime
import hashlib
import json
import shutil
from pathlib import Path

import asyncpg
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from onecard.v1 import settlement_pb2 as pb
from settlement_site import PURCHASE, Lane, Move, Site

from clients.errors import MalformedRequestError, NotAllowedError, NotFoundError, UnavailableError
from server.cli import main
from server.database.facts import settle_calendar
from server.engine.business_calendar import BusinessCalendar
from server.engine.operation import OperationKind
from server.settlement.closing import closing_job, make_missing, restore
from server.settlement.closing_day import close_day, due_days
from server.settlement.closing_store import ClosingFile
from server.settlement.closing_verify import verify_closing
from server.settlement.positions import roll_up_step

CALENDAR = BusinessCalendar.of(time_zone="UTC", cutoff="23:59")
TODAY = datetime.datetime.now(datetime.UTC).date()
YESTERDAY = TODAY - datetime.timedelta(days=1)
OLD = "UPDATE event_batches SET decided_at = decided_at - interval '2 hours'"


async def busy_day(site: Site) -> Lane:
    """Operations of three kinds by two participants, of yesterday and of today."""
    lane = await site.lane()
    own = site.accounts["bank-01"]
    await lane.write([Move(card_id=2, amount_minor=1000), Move(card_id=4)], business_date=YESTERDAY)
    await lane.write(
        [
            Move(card_id=2, amount_minor=300, kind=PURCHASE),
            Move(card_id=2, amount_minor=9000, kind=PURCHASE, response_code="51", reason=14),
            Move(card_id=4, participant_id="bank-02", amount_minor=7),
            Move(card_id=2, kind=OperationKind.REVERSAL, reason=17, approved_minor=0, postings=()),
            Move(
                card_id=2,
                amount_minor=900,
                kind=PURCHASE,
                reason=16,
                flags=3,
                postings=[(1_000_002, own, 700), (400_000 + own, own, 200)],
            ),
        ],
        business_date=YESTERDAY,
    )
    await lane.write([Move(card_id=2, amount_minor=5)], business_date=TODAY)
    return lane


async def closed(site: Site, data_dir: Path) -> Path:
    """Yesterday's folder, made."""
    assert await close_day(site.database, YESTERDAY)
    await make_missing(site.database, data_dir / "settlement", YESTERDAY)
    return data_dir / "settlement" / f"{YESTERDAY:%Y%m%d}"


async def test_files_hold_the_day_of_the_participant(site: Site, data_dir: Path) -> None:
    await busy_day(site)
    folder = await closed(site, data_dir)
    assert sorted(path.name for path in folder.iterdir()) == ["bank-01", "bank-02"]
    with (folder / "bank-01" / ClosingFile.CSV).open(newline="") as content:
        lines = list(csv.DictReader(content))
    assert [(line["sequence"], line["operation_kind"], line["approved_minor"]) for line in lines] == [
        ("1", "2", "1000"),
        ("2", "2", "1"),
        ("3", "1", "300"),
        ("4", "1", "0"),
        ("6", "12", "0"),
        ("7", "1", "900"),
    ]
    assert [line["settlement_change_minor"] for line in lines] == ["-1000", "-1", "300", "0", "0", "900"]
    assert lines[-1]["suspense_change_minor"] == "-200"
    table = pyarrow.parquet.read_table(folder / "bank-01" / ClosingFile.PARQUET)
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in table.to_pylist()] == lines
    with (folder / "bank-01" / ClosingFile.EXCEPTIONS).open(newline="") as content:
        assert [line["sequence"] for line in csv.DictReader(content)] == ["6", "7"]
    manifest = json.loads((folder / "bank-01" / ClosingFile.MANIFEST).read_text())
    assert manifest["operation_count"] == 6
    assert manifest["positions"]["settlement"] == {
        "account_id": site.accounts["bank-01"],
        "opening_minor": 0,
        "debit_minor": 1001,
        "credit_minor": 1200,
        "closing_minor": 199,
        "posting_count": 5,
    }
    for name, facts in manifest["files"].items():
        content = (folder / "bank-01" / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert await verify_closing(site.database, folder / "bank-01") == []
    assert await verify_closing(site.database, folder / "bank-02") == []


async def test_lost_files_are_made_again_byte_for_byte(site: Site, data_dir: Path) -> None:
    await busy_day(site)
    folder = await closed(site, data_dir)
    first = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    assert len(first) == 8
    shutil.rmtree(folder)
    # What happened since changes nothing.
    await (await site.lane()).write([Move(card_id=2)], business_date=TODAY)
    await restore(site.database, data_dir / "settlement", YESTERDAY)
    assert {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()} == first


async def test_closed_date_takes_no_operation_and_the_engine_is_told_to_decide_again(
    site: Site, data_dir: Path
) -> None:
    lane = await busy_day(site)
    await closed(site, data_dir)
    late = await site.lane()
    with pytest.raises(asyncpg.SerializationError):
        await late.write([Move(card_id=6)], business_date=YESTERDAY)
    await lane.write([Move(card_id=6)], business_date=TODAY)
    with pytest.raises(asyncpg.RestrictViolationError):
        await site.database.execute("UPDATE settlement_days SET closed_at = NULL")
    for change in ("UPDATE closings SET operation_count = 0", "DELETE FROM closings", "TRUNCATE closings"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await site.database.execute(change)


async def test_date_is_not_closed_while_a_transaction_of_it_runs(site: Site) -> None:
    lane, slow = await site.lane(), await site.lane()
    await lane.write([Move(card_id=4)], business_date=YESTERDAY)
    late = asyncio.create_task(slow.write([Move(card_id=2)], business_date=YESTERDAY, delay_s=1.0))
    await asyncio.sleep(1.3)  # it has written and not committed
    closing = asyncio.create_task(close_day(lane.connection, YESTERDAY))
    (written,) = await late
    assert await closing
    sequence, last = await site.database.fetchrow(
        "SELECT (SELECT max(sequence) FROM event_batches WHERE first_operation_id = $1),"
        " (SELECT last_sequence FROM settlement_days WHERE closed_at IS NOT NULL)",
        written.operation_id,
    )
    assert sequence == last == 2


async def test_date_is_due_after_cut_over_grace_and_quiet(site: Site) -> None:
    lane = await site.lane()
    await lane.write([Move(card_id=2)], business_date=YESTERDAY)
    await lane.write([Move(card_id=2)], business_date=TODAY)
    await site.database.fetchval("SELECT sequence_events(10)")
    await roll_up_step(lane.connection)
    # Decided a moment ago: whatever calendar says that the date is over, somebody works by another one.
    assert await due_days(site.database, CALENDAR) == []
    await site.database.execute("ALTER TABLE event_batches DISABLE TRIGGER USER")
    await site.database.execute(OLD)
    assert await due_days(site.database, CALENDAR) == [YESTERDAY]


async def test_earlier_date_is_closed_first(site: Site) -> None:
    lane = await busy_day(site)
    assert not await close_day(lane.connection, TODAY)
    assert await close_day(lane.connection, YESTERDAY)
    assert await close_day(lane.connection, TODAY)
    assert not await close_day(lane.connection, TODAY)


async def test_housekeeper_closes_what_is_due_and_makes_what_is_missing(site: Site, data_dir: Path) -> None:
    await busy_day(site)
    await close_day(site.database, YESTERDAY)
    pool = await asyncpg.create_pool(site.dsn, min_size=1, max_size=2)
    job = closing_job(CALENDAR, data_dir / "settlement", site.dsn)
    await job(pool)
    made = await site.database.fetch("SELECT * FROM closings ORDER BY participant_id")
    assert [(row["participant_id"], row["operation_count"]) for row in made] == [
        ("bank-01", 6),
        ("bank-02", 1),
    ]
    await job(pool)
    assert await site.database.fetch("SELECT * FROM closings ORDER BY participant_id") == made
    await pool.close()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / ClosingFile.CSV).write_text("sequence\n"), "operations.csv is missing or"),
        (
            lambda folder: (folder / ClosingFile.PARQUET).unlink(),
            "operations.parquet is missing or was changed",
        ),
        (lambda folder: (folder / ClosingFile.MANIFEST).write_text("{}"), "cannot be read"),
        (
            lambda folder: (folder / ClosingFile.MANIFEST).write_text(
                (folder / ClosingFile.MANIFEST)
                .read_text()
                .replace('"operation_count": 6', '"operation_count": 5')
            ),
            "not the recorded one",
        ),
    ],
)
async def test_verify_finds_changed_files(site: Site, data_dir: Path, damage: object, told: str) -> None:
    await busy_day(site)
    folder = await closed(site, data_dir) / "bank-01"
    damage(folder)  # type: ignore[operator]
    wrong = await verify_closing(site.database, folder)
    assert any(told in one for one in wrong), wrong


async def test_verify_finds_changed_rows(site: Site, data_dir: Path) -> None:
    await busy_day(site)
    folder = await closed(site, data_dir) / "bank-01"
    await site.database.execute("ALTER TABLE operations DISABLE TRIGGER USER")
    await site.database.execute("UPDATE operations SET approved_minor = 299 WHERE approved_minor = 300")
    await site.database.execute("UPDATE settlement_positions SET credit_minor = credit_minor + 1")
    assert await verify_closing(site.database, folder) == [
        "the operations in the database do not add up to the totals",
        "the positions in the database are others",
    ]


async def test_commands_close_verify_and_list(site: Site, data_dir: Path) -> None:
    await busy_day(site)
    await close_day(site.database, YESTERDAY)
    date, places = f"{YESTERDAY:%Y%m%d}", ["--dsn", site.dsn, "--data-dir", str(data_dir)]

    async def onecard(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(CliRunner().invoke, main, ["settlement", *arguments, *places])
        return result.exit_code, result.output

    code, output = await onecard("close", "--date", date)
    assert (code, output.count("\n")) == (2, 1), output
    assert "does not know its business day" in output
    await settle_calendar(site.database, time_zone="UTC", cutoff="23:59")
    code, output = await onecard("close", "--date", date)
    assert code == 0, output
    assert "bank-01 6" in output
    code, output = await onecard("verify", str(data_dir / "settlement"))
    assert (code, output.count("right")) == (0, 2)
    shutil.rmtree(data_dir / "settlement" / date / "bank-02")
    assert (await onecard("close", "--date", date))[0] == 0
    assert (data_dir / "settlement" / date / "bank-02" / "manifest.json").is_file()
    (data_dir / "settlement" / date / "bank-02" / "operations.csv").write_text("")
    code, output = await onecard("verify", str(data_dir / "settlement"))
    assert (code, output.count("right")) == (1, 1)
    code, output = await onecard("exceptions", "--date", date)
    assert code == 0
    assert output.count("parked reversal") == output.count("forced post") == 1
    assert (await onecard("close", "--date", "2026x101"))[0] == 2
    assert (await onecard("close", "--date", "20200101"))[0] == 1


async def test_participant_lists_and_downloads_its_own_closings(site: Site, data_dir: Path) -> None:
    await busy_day(site)
    folder = await closed(site, data_dir)
    await asyncio.to_thread(site.start_worker)
    date = f"{YESTERDAY:%Y%m%d}"
    async with site.client("bank-01") as bank, site.client("operator-01") as operator:
        (closing,) = (await bank.list_closings(pb.ListClosingsRequest())).closings
        manifest = (folder / "bank-01" / "manifest.json").read_bytes()
        assert (closing.business_date, closing.operation_count) == (date, 6)
        assert closing.manifest_sha256 == hashlib.sha256(manifest).digest()

        async def download(file: "pb.ClosingFile", participant: str = "", on: str = date) -> bytes:
            request = pb.DownloadClosingRequest(business_date=on, file=file, participant=participant)
            client = operator if participant else bank
            return b"".join([piece.content async for piece in client.download_closing(request)])

        for file, name in (
            (1, "operations.csv"),
            (2, "operations.parquet"),
            (3, "manifest.json"),
            (4, "exceptions.csv"),
        ):
            assert await download(file) == (folder / "bank-01" / name).read_bytes()
            assert await download(file, "bank-02") == (folder / "bank-02" / name).read_bytes()
        with pytest.raises(MalformedRequestError, match="file"):
            await download(0)
        with pytest.raises(NotFoundError, match="CLOSING_UNKNOWN"):
            await download(1, on="20200101")
        with pytest.raises(NotAllowedError, match="OPERATOR_ONLY"):
            await bank.list_closings(pb.ListClosingsRequest(participant="bank-02"))
        with pytest.raises(MalformedRequestError, match="page_size"):
            await bank.list_closings(pb.ListClosingsRequest(page_size=367))
        (folder / "bank-01" / "operations.csv").write_text("something else")
        with pytest.raises(UnavailableError, match="CLOSING_ELSEWHERE"):
            await download(1)


async def test_pages_of_closings_go_on_where_the_last_ended(site: Site, data_dir: Path) -> None:
    lane = await busy_day(site)
    await closed(site, data_dir)
    assert await close_day(lane.connection, TODAY)
    await make_missing(lane.connection, data_dir / "settlement", TODAY)
    await asyncio.to_thread(site.start_worker)
    async with site.client("bank-01") as bank:
        first = await bank.list_closings(pb.ListClosingsRequest(page_size=1))
        second = await bank.list_closings(
            pb.ListClosingsRequest(page_size=1, page_token=first.next_page_token)
        )
    assert [c.business_date for c in (*first.closings, *second.closings)] == [
        f"{TODAY:%Y%m%d}",
        f"{YESTERDAY:%Y%m%d}",
    ]
    assert (bool(first.next_page_token), second.next_page_token) == (True, "")
