"""``onecard participants`` refuses what would be a grant of nothing, or of more than was meant."""

import asyncio
import subprocess
import sys

from core_under_test import Core

from server.edge.admission import RPC_CLASSES


async def grant(core: Core, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "server.cli", "participants", "grant", *arguments, "--dsn", core.dsn]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=60
    )


async def granted(core: Core, participant_id: str) -> set[tuple[str, str]]:
    statement = "SELECT grant_kind, grant_value FROM participant_grants WHERE participant_id = $1"
    return {tuple(row) for row in await core.database.fetch(statement, participant_id)}


async def test_unknown_rpc_class_is_refused_and_the_known_ones_are_named(core: Core) -> None:
    await core.add_participant("cli-class-01", {})
    done = await grant(core, "cli-class-01", "rpc_class", "authorization", "authorisation")
    assert done.returncode == 2
    assert done.stderr.startswith("onecard: no RPC class authorisation; ")
    assert done.stderr.count("\n") == 1
    named = done.stderr.rpartition("; there are ")[2].strip()
    assert named.split(", ") == sorted(RPC_CLASSES)
    # Nothing of the command is granted, not even what there is.
    assert await granted(core, "cli-class-01") == set()
    assert (await grant(core, "cli-class-01", "rpc_class", "authorization")).returncode == 0
    assert await granted(core, "cli-class-01") == {("rpc_class", "authorization")}


async def test_empty_region_is_refused_because_it_begins_every_region(core: Core) -> None:
    await core.add_participant("cli-region-01", {})
    done = await grant(core, "cli-region-01", "region", "")
    assert done.returncode == 2
    assert done.stderr.startswith("onecard: the database refuses it: participant_grants_value_form")
    assert done.stderr.count("\n") == 1
    assert await granted(core, "cli-region-01") == set()
    assert (await grant(core, "cli-region-01", "region", "36")).returncode == 0
    assert await granted(core, "cli-region-01") == {("region", "36")}
