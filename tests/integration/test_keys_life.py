"""What a change of keys does to cards, workers, the housekeeper and the record; and what survives an interruption."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from core_under_test import (
    CALL_S,
    Core,
    card_issue,
    changed,
    purchase,
    refusal_of,
)
from integration.running_instance import Instance
from key_operators import Ceremony, aged, interrupted, new_key, reference
from onecard.v1 import common_pb2, cryptography_pb2
from onecard.v1 import keys_pb2 as pb
from virtual_card import VirtualCard

from crypto.key_store.software import SoftwareKeyStore
from crypto.key_store.wrapped_file import writer_lock
from crypto.keys import Cipher, Key, KeyRef, KeyState, KeyUsage
from server.housekeeper import JOBS, key_jobs
from server.key_calls import KeyCalls
from server.keys.execution import AdministeredKeys
from server.keys.upkeep import destroy_due_keys, expire_proposals, finish_approved
from server.settings import Settings

REFRESHED_S = 1.6
CONNECTIONS = 8


@pytest_asyncio.fixture(scope="session")
async def housekeeping(key_core: Core) -> AsyncIterator[tuple[Any, AdministeredKeys]]:
    """What the housekeeper's jobs work with."""
    store = SoftwareKeyStore.open(key_core.data_dir / "keys")
    pool = await asyncpg.create_pool(key_core.dsn, min_size=1, max_size=2)
    yield pool, AdministeredKeys(store, KeyCalls(store))
    await pool.close()


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


def explanation(card: VirtualCard, chip: common_pb2.ChipCryptogram, **fields: Any) -> pb.ExplainArqcRequest:
    parts = {
        "key": reference("imk-ac-sm4", 1),
        "pan": card.pan,
        "chip": chip,
        "amount_minor": 100,
    }
    return pb.ExplainArqcRequest(**parts | fields)


async def test_operators_are_told_why_a_cryptogram_was_wrong(
    ceremony: Ceremony, key_core: Core, key_instance: Instance
) -> None:
    card = VirtualCard(key_core.store, 7)
    chip = card.sign(100)
    stub = ceremony.one.stub

    async def explained(request: pb.ExplainArqcRequest) -> pb.ExplainArqcResponse:
        return await stub.ExplainArqc(request, timeout=CALL_S)

    proven = await explained(explanation(card, chip))
    assert (proven.finding, list(proven.fitting)) == ("PROVEN", [])
    names = [part.partition("=")[0] for part in proven.expected]
    assert names == [
        "key",
        "kcv",
        "session_key_method",
        "card_key_option",
        "padding",
        "data",
        "atc",
        "psn",
    ]
    assert "data=AS_AGREED" in proven.expected
    cases: list[tuple[pb.ExplainArqcRequest, str, str]] = [
        (explanation(card, changed(chip, atc=chip.atc + 1)), "FITS_OTHER_PARAMETERS", f"atc={chip.atc}"),
        (explanation(card, chip, psn="01"), "FITS_OTHER_PARAMETERS", "psn=00"),
        (explanation(card, chip, amount_minor=101), "FITS_NOTHING", ""),
        (explanation(card, chip, key=reference("imk-ac-aes")), "FITS_OTHER_PARAMETERS", "key=imk-ac-sm4/1"),
        (explanation(card, chip, key=reference("no-such-key")), "KEY_UNKNOWN", ""),
        (explanation(card, chip, key=reference("no-such-key", 1)), "KEY_UNKNOWN", ""),
        (explanation(card, chip, key=reference("sealing")), "KEY_OF_OTHER_USAGE", ""),
    ]
    for request, finding, fitting in cases:
        answer = await explained(request)
        assert answer.finding == finding, request
        assert not fitting or fitting in answer.fitting
        assert card.pan not in str(answer)
    steps = [entry for entry in await ceremony.one.audit("imk-ac-sm4") if entry.step == "EXPLAINED"]
    assert steps[0].detail == "PROVEN"
    assert steps[0].participant == "custodian-01"
    assert card.pan not in key_instance.errors()


async def test_malformed_questions_are_refused_by_name(ceremony: Ceremony, key_core: Core) -> None:
    card = VirtualCard(key_core.store, 8)
    chip = card.sign(100)
    cases: list[tuple[pb.ExplainArqcRequest, str]] = [
        (explanation(card, chip, key=reference("")), "key.name"),
        (explanation(card, chip, key=reference("imk-ac-sm4", 256)), "key.version"),
        (explanation(card, chip, pan="12345678901"), "pan"),
        (explanation(card, chip, pan="x" * 16), "pan"),
        (explanation(card, chip, psn="1"), "psn"),
        (explanation(card, changed(chip, psn="02"), psn="01"), "chip.psn"),
        (explanation(card, chip, amount_minor=-1), "amount_minor"),
        (explanation(card, chip, amount_minor=10**12), "amount_minor"),
        (explanation(card, chip, session_key_method=9), "session_key_method"),
        (explanation(card, changed(chip, arqc=b"1234567")), "chip.arqc"),
        (explanation(card, changed(chip, iad=b"123456")), "chip.iad"),
        (explanation(card, changed(chip, atc=0)), "chip.atc"),
        (explanation(card, changed(chip, tvr=b"")), "chip.tvr"),
    ]
    for request, field in cases:
        refusal = await refusal_of(ceremony.one.stub.ExplainArqc(request, timeout=CALL_S))
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field), field
        assert card.pan not in refusal.text


async def test_a_name_without_an_active_version_is_explained(ceremony: Ceremony, key_core: Core) -> None:
    await ceremony.done(generate=new_key("imk-not-active"))
    card = VirtualCard(key_core.store, 9)
    request = explanation(card, card.sign(100), key=cryptography_pb2.KeyReference(name="imk-not-active"))
    answer = await ceremony.one.stub.ExplainArqc(request, timeout=CALL_S)
    assert (answer.finding, list(answer.expected)) == ("KEY_IN_WRONG_STATE", [])


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
