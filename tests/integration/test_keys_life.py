"""What a change of keys does to cards, workers, the housekeeper and the record; and when it is not made."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from core_under_test import CALL_S, Core, card_issue, purchase, refusal_of
from integration.running_instance import Instance
from key_operators import Ceremony, aged, new_key, reference
from onecard.v1 import common_pb2
from onecard.v1 import keys_pb2 as pb
from virtual_card import VirtualCard

from crypto.key_store.software import SoftwareKeyStore
from crypto.keys import KeyState
from server.housekeeper import JOBS, key_jobs
from server.keys.execution import AdministeredKeys
from server.keys.upkeep import destroy_due_keys, expire_proposals
from server.settings import Settings

REFRESHED_S = 1.6
CONNECTIONS = 8


async def test_both_workers_take_over_a_rotation_and_old_cards_go_on(
    ceremony: Ceremony, key_core: Core
) -> None:
    old = key_core.card()
    banks = [key_core.caller() for _ in range(CONNECTIONS)]
    for bank in banks:
        assert (await bank.authorize(purchase(old))).response_code == "00"
    rotated = await ceremony.done(rotate=pb.RotateKey(name="imk-ac-sm4"))
    assert rotated.key.version == 2
    await asyncio.sleep(REFRESHED_S)
    store = SoftwareKeyStore.open(key_core.data_dir / "keys")
    assert store.active("imk-ac-sm4").version == 2
    # As many connections as make sure that both workers answer: each issues a card under the new version.
    new = [VirtualCard(store, 2_000_000 + n) for n in range(CONNECTIONS)]
    for bank, card in zip(banks, new, strict=True):
        await bank.cards.IssueCard(card_issue(card), timeout=CALL_S)
        version = await key_core.database.fetchval(
            "SELECT ac_key_version FROM cards WHERE card_id = $1", await key_core.card_id(card)
        )
        assert version == 2
        await key_core.set_status(card, common_pb2.CARD_STATUS_NORMAL)
    for bank, card in zip(banks, reversed(new), strict=True):
        assert (await bank.authorize(purchase(old))).response_code == "00"
        # 51: the cryptogram is proven, the wallet is empty.
        assert (await bank.authorize(purchase(card))).response_code == "51"
    # The old version generates nothing any more, but verifies.
    states = {key.version: key.state for key in await ceremony.one.keys("imk-ac-sm4")}
    assert states == {1: pb.KEY_LIFE_STATE_VERIFY_ONLY, 2: pb.KEY_LIFE_STATE_ACTIVE}


async def test_a_key_is_destroyed_after_seven_days_and_not_before(
    ceremony: Ceremony, key_core: Core, housekeeping: tuple[Any, AdministeredKeys]
) -> None:
    name = "imk-doomed"
    made = (await ceremony.done(generate=new_key(name))).key
    doomed = await ceremony.done(destroy=pb.DestroyKey(key=reference(name, 1)))
    at_s = doomed.key.destroy_at_unix_ms // 1000
    await destroy_due_keys(*housekeeping, now_s=at_s - 1)
    (key,) = await ceremony.one.keys(name)
    assert key.state == pb.KEY_LIFE_STATE_PRE_ACTIVE
    # Twice, as after a run that died before it wrote the record.
    await destroy_due_keys(*housekeeping, now_s=at_s)
    await destroy_due_keys(*housekeeping, now_s=at_s)
    (key,) = await ceremony.one.keys(name)
    assert (key.state, key.kcv) == (pb.KEY_LIFE_STATE_DESTROYED, made.kcv)
    last = (await ceremony.one.audit(name))[-1]
    assert (last.step, last.participant, last.key_version) == ("DESTROYED", "housekeeper", 1)
    assert (last.change_id, last.detail) == (doomed.change.change_id, f"kcv {made.kcv}")
    steps = [step for step, *_ in await ceremony.one.steps(name)]
    assert steps.count("DESTROYED") == 1
    refusal = await ceremony.refused(cancel_destruction=pb.CancelKeyDestruction(key=reference(name, 1)))
    assert refusal.reason == "KEY_STATE"


async def test_a_destruction_without_record_is_recorded_later(
    ceremony: Ceremony, key_core: Core, housekeeping: tuple[Any, AdministeredKeys]
) -> None:
    name = "imk-unrecorded"
    await ceremony.done(generate=new_key(name))
    doomed = await ceremony.done(destroy=pb.DestroyKey(key=reference(name, 1)))
    store = SoftwareKeyStore.open(key_core.data_dir / "keys")
    store.destroy_due(doomed.key.destroy_at_unix_ms // 1000)
    await destroy_due_keys(*housekeeping)
    assert (await ceremony.one.steps(name))[-1][0] == "DESTROYED"


async def test_proposals_expire_after_a_day(
    ceremony: Ceremony, key_core: Core, housekeeping: tuple[Any, AdministeredKeys]
) -> None:
    old, young = [
        await ceremony.one.propose(
            import_components=pb.ImportKeyComponents(key=new_key("imk-expires"), components=2, kcv="ABCDEF")
        )
        for _ in range(2)
    ]
    for change in (old, young):
        await ceremony.two.submit(change.change_id, b"\x01" * 16)
    await aged(key_core, old.change_id, "proposed_at", "24 hours")
    await expire_proposals(housekeeping[0])
    expired = await ceremony.one.change(old.change_id)
    assert (expired.state, expired.decided_by) == (pb.KEY_CHANGE_STATE_EXPIRED, "housekeeper")
    assert (await ceremony.one.change(young.change_id)).state == pb.KEY_CHANGE_STATE_PROPOSED
    kept = "SELECT component_sealed IS NOT NULL FROM key_components WHERE change_id = $1"
    assert await key_core.database.fetchval(kept, old.change_id) is False
    assert await key_core.database.fetchval(kept, young.change_id) is True
    last = (await ceremony.one.audit("imk-expires"))[-1]
    assert (last.step, last.participant, last.change_id) == ("EXPIRED", "housekeeper", old.change_id)
    assert last.detail == "IMPORT_COMPONENTS"


async def test_the_housekeeper_runs_its_jobs_for_keys(key_core: Core) -> None:
    settings = replace(Settings(data_dir=key_core.data_dir), workers=1)
    async with asyncpg.create_pool(key_core.dsn, min_size=1, max_size=2) as pool:
        jobs = {job.name: job for job in (*JOBS, *key_jobs(settings)) if "key" in job.name}
        assert set(jobs) == {"expire_key_proposals", "finish_key_changes", "destroy_due_keys"}
        for job in jobs.values():
            await job.run(pool)


async def test_the_audit_is_append_only_and_without_gaps(ceremony: Ceremony, key_core: Core) -> None:
    await ceremony.done(generate=new_key("imk-audited"))
    entries = await ceremony.one.audit("imk-audited")
    assert [entry.step for entry in entries] == ["PROPOSED", "APPROVED", "EXECUTED"]
    assert all(entry.recorded_at_unix_ms > 0 for entry in entries)
    for statement in (
        "UPDATE key_audit SET detail = '' WHERE entry_id = $1",
        "DELETE FROM key_audit WHERE entry_id = $1",
    ):
        with pytest.raises(asyncpg.RestrictViolationError):
            await key_core.database.execute(statement, entries[0].entry_id)
    # Whatever is decided has its step, and whatever is a step of a change has its proposal or a refusal.
    missing = await key_core.database.fetchval(
        "SELECT count(*) FROM key_changes AS c WHERE c.state <> 'PROPOSED' AND NOT EXISTS ("
        " SELECT FROM key_audit AS a WHERE a.change_id = c.change_id AND a.step = c.state)"
    )
    assert missing == 0
    unproposed = await key_core.database.fetchval(
        "SELECT count(*) FROM key_changes AS c WHERE NOT EXISTS ("
        " SELECT FROM key_audit AS a WHERE a.change_id = c.change_id AND a.step = 'PROPOSED')"
    )
    assert unproposed == 0


async def test_the_key_store_that_is_gone_is_unavailable_and_nothing_is_recorded(
    ceremony: Ceremony, key_core: Core
) -> None:
    name = "imk-store-gone"
    proposed = await ceremony.one.propose(generate=new_key(name))
    keys_file = key_core.data_dir / "keys" / "keys.json"
    keys_file.chmod(0o644)
    try:
        refusal = await refusal_of(ceremony.two.approve(proposed.change_id))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "KEY_STORE_UNAVAILABLE")
    finally:
        keys_file.chmod(0o600)
    assert (await ceremony.two.approve(proposed.change_id)).key.version == 1


async def test_a_list_of_keys_that_was_changed_is_unavailable_and_said_so(
    ceremony: Ceremony, key_core: Core, key_instance: Instance
) -> None:
    keys_file = key_core.data_dir / "keys" / "keys.json"
    text = keys_file.read_text()
    proposed = await ceremony.one.propose(generate=new_key("imk-seal-broken"))
    before = len(key_instance.errors())

    def put(text: str) -> None:
        beside = keys_file.with_name("keys.json.test")
        beside.write_text(text)
        beside.chmod(0o600)
        beside.rename(keys_file)

    put(text.replace('"PRE_ACTIVE"', '"ACTIVE"', 1).replace('"VERIFY_ONLY"', '"ACTIVE"', 1))
    try:
        for call in (ceremony.one.keys(), ceremony.two.approve(proposed.change_id)):
            refusal = await refusal_of(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "KEY_STORE_UNAVAILABLE")
    finally:
        put(text)
    assert "not authentic" in key_instance.errors()[before:]
    assert (await ceremony.two.approve(proposed.change_id)).key.version == 1


async def test_a_version_that_cards_or_pins_need_is_not_destroyed(ceremony: Ceremony, key_core: Core) -> None:
    """Asked when it is proposed, and again when it is approved."""
    card, caller = VirtualCard(key_core.store, 3_000_000), key_core.caller()
    await caller.cards.IssueCard(card_issue(card), timeout=CALL_S)
    versions = await key_core.database.fetchrow(
        "SELECT ac_key_version, ss_key_version FROM cards WHERE card_id = $1", await key_core.card_id(card)
    )
    names = {"imk-ac-sm4": versions[0], "ss-auth-sm4": versions[1]}
    for name, version in names.items():
        await ceremony.done(rotate=pb.RotateKey(name=name))
        refusal = await ceremony.refused(destroy=pb.DestroyKey(key=reference(name, version)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_IN_USE")
        assert (await ceremony.one.steps(name))[-1] == ("REFUSED", "custodian-01", "DESTROY KEY_IN_USE")
    # Nobody was issued a card under these.
    for name in ("imk-ac-sm4", "ss-auth-sm4", "pvk"):
        unused = (await ceremony.done(rotate=pb.RotateKey(name=name))).key.version
        await ceremony.done(rotate=pb.RotateKey(name=name))
        await ceremony.done(destroy=pb.DestroyKey(key=reference(name, unused)))
        await ceremony.done(cancel_destruction=pb.CancelKeyDestruction(key=reference(name, unused)))

    ref = reference("pvk", unused)
    proposed = await ceremony.one.propose(destroy=pb.DestroyKey(key=ref))
    pin = (
        "INSERT INTO card_pins (card_id, shard, pvk_version, reference_sealed, changed_at)"
        " VALUES (-7, 0, $1, '', now())"
    )
    await key_core.database.execute(pin, unused)
    try:
        for refusal in (
            await refusal_of(ceremony.two.approve(proposed.change_id)),
            await ceremony.refused(destroy=pb.DestroyKey(key=ref)),
        ):
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_IN_USE")
    finally:
        await key_core.database.execute("DELETE FROM card_pins WHERE card_id = -7")
    assert (await ceremony.one.change(proposed.change_id)).state == pb.KEY_CHANGE_STATE_PROPOSED
    await ceremony.two.reject(proposed.change_id)


async def test_a_sealing_key_is_never_destroyed(ceremony: Ceremony) -> None:
    await ceremony.done(rotate=pb.RotateKey(name="sealing"))
    refusal = await ceremony.refused(destroy=pb.DestroyKey(key=reference("sealing", 1)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_IN_USE")
    assert "sealed columns" in refusal.text


@pytest.mark.parametrize("name", ["sealing", "challenge", "card-code"])
def test_a_key_store_without_what_the_core_needs_is_one_line(
    serve: Callable[..., Instance], data_dir: Path, name: str
) -> None:
    """However it came about: nobody can retire such a key."""
    store = SoftwareKeyStore.create(data_dir / "keys")
    ref = store.active(name)
    info, material = store._list.entry(ref)
    verify_only = replace(info, state=KeyState.VERIFY_ONLY)
    store._list.change(lambda keys: keys.update({ref: (verify_only, material)}))
    instance = serve()
    assert instance.exit_code() == 2
    lines = instance.errors().splitlines()
    assert lines[-1].endswith(f"key store: key {name} has no active version")
    assert not any("Traceback" in line or "ends again" in line for line in lines)
