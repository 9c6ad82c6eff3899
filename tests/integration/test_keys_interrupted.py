"""Approved changes of keys that are interrupted, or race, are carried out once or have failed."""

import asyncio
import secrets
import time
from typing import Any

import grpc
import pytest
from core_under_test import Core, refusal_of
from key_operators import Ceremony, aged, interrupted, new_key, reference
from onecard.v1 import keys_pb2 as pb

from crypto.key_store.software import SoftwareKeyStore
from crypto.key_store.wrapped_file import writer_lock
from crypto.keys import Cipher, Key, KeyRef, KeyUsage
from server.keys.execution import AdministeredKeys
from server.keys.upkeep import finish_approved

CUT_CHANGES = [
    "generate",
    "import_components",
    "import_block",
    "rotate",
    "activate",
    "retire",
    "destroy",
    "cancel_destruction",
]


async def cut_off(ceremony: Ceremony, kind: str, name: str) -> tuple[pb.KeyChange, Any]:
    """A proposal about ``name`` with versions 1 (active) and 2, and what the key store does for it."""
    key = await ceremony.active_key(name, exportability=pb.KEY_EXPORTABILITY_EXPORTABLE)
    await ceremony.done(generate=new_key(name))
    first, second, under = reference(name, 1), reference(name, 2), reference("kbpk-sm4")
    if kind == "cancel_destruction":
        await ceremony.done(destroy=pb.DestroyKey(key=second))
    block = ""
    if kind == "import_block":
        block = (await ceremony.done(export_block=pb.ExportKeyBlock(key=first, under=under))).key_block
    parts = [secrets.token_bytes(16) for _ in range(2)]
    whole = Key(Cipher.SM4, KeyUsage.IMK_AC, bytes(one ^ other for one, other in zip(*parts, strict=True)))
    changes: dict[str, Any] = {
        "generate": new_key(name),
        "import_components": pb.ImportKeyComponents(key=new_key(name), components=2, kcv=whole.kcv()),
        "import_block": pb.ImportKeyBlock(name=name, key_block=block or "B" * 64, under=under),
        "rotate": pb.RotateKey(name=name),
        "activate": pb.ActivateKey(key=second),
        "retire": pb.RetireKey(key=first),
        "destroy": pb.DestroyKey(key=second),
        "cancel_destruction": pb.CancelKeyDestruction(key=second),
    }
    proposed = await ceremony.one.propose(**{kind: changes[kind]})
    if kind == "import_components":
        await ceremony.one.submit(proposed.change_id, parts[0])
        await ceremony.two.submit(proposed.change_id, parts[1])
    store, change_id = SoftwareKeyStore.open(ceremony.core.data_dir / "keys"), proposed.change_id
    _, value = store._list.entry(KeyRef(name, 1))
    assert value.kcv() == key.kcv
    steps = {
        "generate": lambda: store.generate(
            name, cipher=Cipher.SM4, usage=KeyUsage.IMK_AC, size=16, change_id=change_id
        ),
        "import_components": lambda: store.install(name, whole, change_id=change_id),
        "import_block": lambda: store.install(name, value, change_id=change_id),
        "rotate": lambda: store.rotate(name, change_id=change_id),
        "activate": lambda: store.activate(KeyRef(name, 2)),
        "retire": lambda: store.retire(KeyRef(name, 1)),
        "destroy": lambda: store.schedule_destruction(KeyRef(name, 2), int(time.time()) + 1_000_000),
        "cancel_destruction": lambda: store.cancel_destruction(KeyRef(name, 2)),
    }
    return proposed, steps[kind]


@pytest.mark.parametrize("acted", [False, True], ids=["before the key store", "after the key store"])
@pytest.mark.parametrize("kind", CUT_CHANGES)
async def test_an_interrupted_approval_is_completed_by_approving_again(
    ceremony: Ceremony, key_core: Core, kind: str, acted: bool
) -> None:
    name = f"imk-cut-{kind.replace('_', '-')}-{int(acted)}"
    proposed, act = await cut_off(ceremony, kind, name)
    await interrupted(key_core, proposed.change_id)
    executed = act() if acted else None
    count = len(await ceremony.one.keys(name))
    # What is approved is not rejected, and does not expire.
    refusal = await refusal_of(ceremony.three.reject(proposed.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_CHANGE_STATE")
    await aged(key_core, proposed.change_id, "proposed_at", "2 days")
    assert (await refusal_of(ceremony.one.approve(proposed.change_id))).reason == "SECOND_PERSON_REQUIRED"
    assert (await ceremony.one.change(proposed.change_id)).state == pb.KEY_CHANGE_STATE_APPROVED
    # By another operator than approved it, too.
    done = await ceremony.three.approve(proposed.change_id)
    assert (done.change.state, done.change.decided_by) == (pb.KEY_CHANGE_STATE_EXECUTED, "custodian-02")
    makes_one = kind in ("generate", "import_components", "import_block", "rotate")
    assert len(await ceremony.one.keys(name)) == count + (makes_one and not acted)
    assert executed is None or (done.key.version, done.key.kcv) == (executed.version, executed.kcv)
    steps = await ceremony.one.steps(name)
    step, participant, detail = steps[-1]
    assert (step, participant) == ("EXECUTED", "custodian-03")
    assert detail.startswith(f"{kind.upper()} kcv={done.key.kcv} ")
    kept = "SELECT count(*) FROM key_components WHERE change_id = $1 AND component_sealed IS NOT NULL"
    assert await key_core.database.fetchval(kept, proposed.change_id) == 0


@pytest.mark.parametrize("kind", CUT_CHANGES)
async def test_an_interrupted_approval_is_completed_by_the_housekeeper(
    ceremony: Ceremony, key_core: Core, housekeeping: tuple[Any, AdministeredKeys], kind: str
) -> None:
    name = f"imk-left-{kind.replace('_', '-')}"
    proposed, _ = await cut_off(ceremony, kind, name)
    await interrupted(key_core, proposed.change_id, age="50 s")
    await finish_approved(*housekeeping)
    assert (await ceremony.one.change(proposed.change_id)).state == pb.KEY_CHANGE_STATE_APPROVED
    await aged(key_core, proposed.change_id, "decided_at", "1 minute")
    await finish_approved(*housekeeping)
    change = await ceremony.one.change(proposed.change_id)
    assert (change.state, change.decided_by) == (pb.KEY_CHANGE_STATE_EXECUTED, "custodian-02")
    assert (await ceremony.one.steps(name))[-1][:2] == ("EXECUTED", "housekeeper")
    # The approver's own repetition tells what became of it.
    key = (await ceremony.two.approve(proposed.change_id)).key
    assert (key.name, key.version) == (name, change.key_version)
    await finish_approved(*housekeeping)
    assert [step for step, *_ in await ceremony.one.steps(name)][-2:] == ["APPROVED", "EXECUTED"]


async def test_an_export_that_was_interrupted_gives_no_block_away(
    ceremony: Ceremony, key_core: Core, housekeeping: tuple[Any, AdministeredKeys]
) -> None:
    name = "zpk-left"
    fields = {"usage": "PIN_ENCRYPTION", "exportability": pb.KEY_EXPORTABILITY_EXPORTABLE}
    await ceremony.active_key(name, **fields)
    export = pb.ExportKeyBlock(key=reference(name, 1), under=reference("kbpk-sm4"))
    taken, left = [await ceremony.one.propose(export_block=export) for _ in range(2)]
    # The instance has a housekeeper of its own: a younger one is not taken from us.
    await interrupted(key_core, taken.change_id)
    assert (await ceremony.two.approve(taken.change_id)).key_block
    await interrupted(key_core, left.change_id, age="2 minutes")
    await finish_approved(*housekeeping)
    assert (await ceremony.one.change(left.change_id)).state == pb.KEY_CHANGE_STATE_FAILED
    assert (await ceremony.one.steps(name))[-1] == ("FAILED", "housekeeper", "EXPORT_BLOCK KEY_CHANGE_STATE")
    assert (await refusal_of(ceremony.two.approve(left.change_id))).reason == "KEY_CHANGE_STATE"


async def test_what_the_key_store_refuses_for_good_has_failed(
    ceremony: Ceremony, key_core: Core, housekeeping: tuple[Any, AdministeredKeys]
) -> None:
    name = "imk-overtaken"
    await ceremony.active_key(name)
    await ceremony.done(generate=new_key(name))
    proposed = await ceremony.one.propose(activate=pb.ActivateKey(key=reference(name, 2)))
    await interrupted(key_core, proposed.change_id, age="2 minutes")
    store = SoftwareKeyStore.open(key_core.data_dir / "keys")
    store.schedule_destruction(KeyRef(name, 2), int(time.time()) + 1_000_000)
    await finish_approved(*housekeeping)
    assert (await ceremony.one.change(proposed.change_id)).state == pb.KEY_CHANGE_STATE_FAILED
    assert (await ceremony.one.steps(name))[-1] == ("FAILED", "housekeeper", "ACTIVATE KEY_STATE")


async def test_one_change_of_a_key_is_carried_out_at_a_time(ceremony: Ceremony, key_core: Core) -> None:
    """A change that is completed later must not undo one that was approved after it."""
    name = "imk-in-turn"
    await ceremony.active_key(name)
    await ceremony.done(generate=new_key(name))
    await ceremony.done(destroy=pb.DestroyKey(key=reference(name, 2)))
    spare = await ceremony.one.propose(cancel_destruction=pb.CancelKeyDestruction(key=reference(name, 2)))
    rotate = await ceremony.one.propose(rotate=pb.RotateKey(name=name))
    await interrupted(key_core, spare.change_id)
    refusal = await refusal_of(ceremony.two.approve(rotate.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_CHANGE_STATE")
    assert (await ceremony.one.change(rotate.change_id)).state == pb.KEY_CHANGE_STATE_PROPOSED
    await ceremony.two.approve(spare.change_id)
    await ceremony.two.approve(rotate.change_id)


async def test_twins_that_approve_at_once_make_one_key(ceremony: Ceremony) -> None:
    name = "imk-twins"
    proposed = await ceremony.one.propose(generate=new_key(name))
    await asyncio.gather(
        ceremony.two.approve(proposed.change_id),
        ceremony.three.approve(proposed.change_id),
        ceremony.two.reject(proposed.change_id),
        return_exceptions=True,
    )
    change = await ceremony.one.change(proposed.change_id)
    is_made = change.state == pb.KEY_CHANGE_STATE_EXECUTED
    assert len(await ceremony.one.keys(name)) == (1 if is_made else 0)
    decisive = [step for step, *_ in await ceremony.one.steps(name) if step != "REFUSED"]
    assert decisive == (["PROPOSED", "APPROVED", "EXECUTED"] if is_made else ["PROPOSED", "REJECTED"])


async def test_an_approval_whose_caller_hung_up_runs_to_its_end(ceremony: Ceremony, key_core: Core) -> None:
    name = "imk-hung-up"
    proposed = await ceremony.one.propose(generate=new_key(name))
    request = pb.ApproveKeyChangeRequest(change_id=proposed.change_id)
    # Another writer holds the key store, so that the approval waits inside it.
    with writer_lock(key_core.data_dir / "keys"):
        refusal = await refusal_of(ceremony.two.stub.ApproveKeyChange(request, timeout=0.5))
        assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
        # It is committed already, and no transaction waits for the key store.
        assert (await ceremony.one.change(proposed.change_id)).state == pb.KEY_CHANGE_STATE_APPROVED
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        assert await key_core.database.fetchval(waiting) == 0
        refusal = await refusal_of(ceremony.three.reject(proposed.change_id))
        assert refusal.reason == "KEY_CHANGE_STATE"
    for _ in range(100):
        change = await ceremony.one.change(proposed.change_id)
        if change.state == pb.KEY_CHANGE_STATE_EXECUTED:
            break
        await asyncio.sleep(0.05)
    assert (change.state, change.decided_by) == (pb.KEY_CHANGE_STATE_EXECUTED, "custodian-02")
    assert len(await ceremony.one.keys(name)) == 1
