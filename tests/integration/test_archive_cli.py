"""``onecard archive`` beside a running instance, and the housekeeper that archives by itself."""

import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from archive_trial import OPERATIONS_DAYS, Trial
from core_under_test import Core, deposit, distant_cutoff, purchase
from running_instance import Instance, eventually, run_apart

from server.settings import socket_dsn

Serve = Callable[..., Instance]
OPERATIONS = 500


def onecard(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "server.cli", "archive", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


async def filled(facts: dict[str, Any], directory: Path, days: list[int]) -> list[date]:
    """Business dates so many days ago, with operations."""
    trial = await Trial.open(socket_dsn(Path(facts["socket_dir"])), directory)
    dates = [trial.ago(ago) for ago in days]
    for business_date in dates:
        await trial.fill(business_date, operations=OPERATIONS)
    await trial.database.close()
    return dates


def test_dates_are_archived_listed_verified_shown_and_restored(serve: Serve, data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    # The instance itself has nothing to archive: its housekeeper may begin at any moment.
    facts = serve("--operations-days", "3650").until_ready()
    archive = data_dir / "archive"
    old, young = run_apart(filled(facts, archive, [OPERATIONS_DAYS + 2, 20]))
    done = onecard("run", "--operations-days", str(OPERATIONS_DAYS), *where)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{old} archived: {OPERATIONS} operations, {OPERATIONS} postings\n1 archived, 0 stay\n"
    )
    # Sooner than the instance would by itself.
    assert f"{young} archived" in onecard("run", "--date", f"{young:%Y%m%d}", *where).stdout
    listed = onecard("list", *where).stdout
    assert listed.count("archived") >= 4
    assert f"operations_{old:%Y%m%d}.1.parquet" in listed
    assert "MISSING" not in listed
    assert onecard("verify", *where).stdout.endswith("4 as recorded, 0 wrong\n")

    file = archive / f"operations_{old:%Y%m%d}.1.parquet"
    shown = onecard("show", str(file)).stdout
    assert f"business date  {old}" in shown
    assert "500 in 1 row groups" in shown
    damaged = bytearray(file.read_bytes())
    damaged[200] ^= 0xFF
    kept = file.read_bytes()
    file.write_bytes(damaged)
    wrong = onecard("verify", "--date", f"{old:%Y%m%d}", *where)
    assert wrong.returncode == 1
    assert wrong.stdout.endswith("1 as recorded, 1 wrong\n")
    refused = onecard("restore", str(file), *where)
    assert refused.returncode == 1
    assert refused.stderr.startswith("onecard: ")
    assert refused.stderr.count("\n") == 1
    file.write_bytes(kept)
    assert onecard("restore", str(file), *where).stdout == (
        f"{old} is online again: {OPERATIONS} operations, {OPERATIONS} postings\n"
    )
    assert "restored" in onecard("list", *where).stdout


def test_wrong_use_is_one_line(serve: Serve, data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    assert onecard("list", *where).stderr.startswith("onecard: no onecard runs on")
    serve().until_ready()
    for arguments, line in (
        (("restore",), "onecard: give a file or --date\n"),
        (("restore", "--date", "20200101"), "onecard: 2020-01-01 was never archived (ARCHIVE_UNKNOWN)\n"),
        (
            ("run", "--date", "20200101"),
            "onecard: no operations of 2020-01-01 are online (ARCHIVE_DATE_UNKNOWN)\n",
        ),
        (("show", "/nowhere"), "onecard: there is no file /nowhere (ARCHIVE_FILE_MISSING)\n"),
    ):
        options = where if arguments[0] != "show" else ()
        assert onecard(*arguments, *options).stderr == line
    few = onecard("run", "--operations-days", "6", *where)
    assert few.stderr == "onecard: operations_days is 6, allowed is 7 to 36500\n"
    assert few.returncode == 2


def test_housekeeper_archives_what_is_due(serve: Serve, data_dir: Path) -> None:
    first = serve()
    (due,) = run_apart(filled(first.until_ready(), data_dir / "unused", [9]))
    assert first.stop() == 0
    elsewhere = data_dir.parent / "files"
    second = serve("--operations-days", "8", "--archive-dir", str(elsewhere))
    second.until_ready()
    eventually(lambda: "business date archived" in second.errors())
    assert {path.name for path in elsewhere.iterdir()} == {
        f"operations_{due:%Y%m%d}.1.parquet",
        f"postings_{due:%Y%m%d}.1.parquet",
    }
    # The command line knows where the running instance keeps them.
    assert onecard("verify", "--data-dir", str(data_dir)).stdout.endswith("2 as recorded, 0 wrong\n")


async def lived(core: Core) -> None:
    """Operations of all sorts by real calls, and then time passes: all of it becomes a date of long ago."""
    await core.open(cards=30)
    caller = core.caller()
    for n in range(25):
        card = core.card()
        assert (await caller.authorize(purchase(card, 100 + n))).response_code == "00"
        assert (await caller.authorize(deposit(card, 50))).response_code == "00"
        assert (await caller.authorize(purchase(card, 10_000_000))).response_code != "00"
    await core.close()


async def shifted(dsn: str, *, days: int) -> list[date]:
    """Moves all business dates to so many days earlier, past the guards; gives them, ascending."""
    admin = await asyncpg.connect(dsn)
    try:
        return await _shift(admin, days)
    finally:
        await admin.close()


async def _shift(admin: "asyncpg.Connection[Any]", days: int) -> list[date]:
    await admin.execute("SET session_replication_role = replica")
    # Whoever archives must own the partitions.
    await admin.execute("SET ROLE onecard")
    rows = await admin.fetch("SELECT DISTINCT business_date FROM operations ORDER BY business_date")
    for row in rows:
        await admin.execute("SELECT ensure_partitions($1, 1)", row[0] - timedelta(days=days))
    await admin.execute("RESET ROLE")
    for table in ("operations", "postings", "event_batches"):
        await admin.execute(f"UPDATE {table} SET business_date = business_date - $1::integer", days)
    for table in ("event_batches", "operations"):
        await admin.execute(f"UPDATE {table} SET decided_at = decided_at - make_interval(days => $1)", days)
    # Numbered and added up anew.
    await admin.execute("UPDATE event_batches SET sequence = NULL")
    await admin.execute("TRUNCATE settlement_positions, settlement_days, made_days, closings")
    await admin.execute("UPDATE event_head SET last_sequence = 0, scan_from = '-infinity'")
    await admin.execute("UPDATE position_watermark SET through_sequence = 0")
    return [row[0] - timedelta(days=days) for row in rows]


def test_books_agree_before_and_after_a_date_is_archived_and_restored(serve: Serve, data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))

    def reconciled() -> None:
        command = [sys.executable, "-m", "server.cli", "reconcile", *where]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    first = serve("--business-day-cutoff", distant_cutoff())
    facts = first.until_ready()
    socket_dir = Path(facts["socket_dir"])
    run_apart(lived(Core(data_dir=data_dir, facts=facts, dsn=socket_dsn(socket_dir))))
    reconciled()
    days = run_apart(shifted(socket_dsn(socket_dir, user="postgres"), days=OPERATIONS_DAYS + 9))
    # The housekeeper numbers, adds up and closes; a date of long ago at once.
    eventually(lambda: onecard("run", *where).returncode == 0, wait_s=60)
    assert onecard("list", *where).stdout.count(".1.parquet") == 2 * len(days)
    reconciled()
    assert onecard("restore", "--date", f"{days[-1]:%Y%m%d}", *where).returncode == 0
    reconciled()
    assert onecard("run", *where).stdout.endswith("1 archived, 0 stay\n")
    reconciled()
    assert onecard("verify", *where).stdout.endswith(f"{2 * len(days) + 2} as recorded, 0 wrong\n")
