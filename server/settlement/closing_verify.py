"""Checks the files of a closing against themselves and the database: digests, lines, totals, positions."""

import asyncio
import json
from datetime import date
from pathlib import Path
from typing import Any

import asyncpg

from server.database.statements import load
from server.settlement.closing import is_online, read_totals
from server.settlement.closing_files import position_facts, total_facts, totals_of
from server.settlement.closing_store import ClosingFile, digest_of
from server.settlement.positions import accounts_of, read_position

STATEMENTS = load("server.settlement")


def closing_folders(folder: Path) -> list[Path]:
    """The folders with a manifest at ``folder`` or up to two levels below it, in order."""
    found = [
        path.parent
        for pattern in ("", "*/", "*/*/")
        for path in folder.glob(f"{pattern}{ClosingFile.MANIFEST}")
        # Those that begin with a dot are being made.
        if not path.parent.name.startswith(".")
    ]
    return sorted(found)


async def verify_closing(connection: "asyncpg.Connection[Any]", folder: Path) -> list[str]:
    """What is wrong with a closing; nothing when it is right."""
    try:
        text = (folder / ClosingFile.MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
        business_date = date.fromisoformat(manifest["business_date"])
        participant_id, files = manifest["participant"], manifest["files"]
        digests = {ClosingFile(name): facts["sha256"] for name, facts in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ["the manifest cannot be read"]
    wrong = []
    recorded = await connection.fetchrow(STATEMENTS["find_closing"], participant_id, business_date)
    if recorded is None:
        wrong.append("the database has no such closing")
    elif recorded["manifest"] != text:
        wrong.append("the manifest is not the recorded one")
    for file, digest in digests.items():
        if await asyncio.to_thread(digest_of, folder / file) != digest:
            wrong.append(f"{file} is missing or was changed")
    if wrong:
        return wrong
    return await _compare(connection, folder, manifest, business_date=business_date)


async def _compare(
    connection: "asyncpg.Connection[Any]", folder: Path, manifest: dict[str, Any], *, business_date: date
) -> list[str]:
    wrong = []
    participant_id = manifest["participant"]
    totals = await asyncio.to_thread(totals_of, folder / ClosingFile.CSV)
    if [total_facts(total) for total in totals] != manifest["totals"]:
        wrong.append("the lines do not add up to the totals")
    # Of an archived date the digests tell, and the positions, which stay.
    in_database = await read_totals(connection, business_date, participant_id)
    if (
        await is_online(connection, business_date)
        and [total_facts(total) for total in in_database] != manifest["totals"]
    ):
        wrong.append("the operations in the database do not add up to the totals")
    account_id = await connection.fetchval(STATEMENTS["find_participant"], participant_id)
    accounts = accounts_of(account_id)
    reading = await read_position(connection, list(accounts), business_date)
    positions = {accounts[p.account_id].name.lower(): position_facts(p) for p in reading.positions}
    if positions != manifest["positions"]:
        wrong.append("the positions in the database are others")
    return wrong
