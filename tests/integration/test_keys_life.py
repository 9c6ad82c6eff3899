"""What a change of keys does to cards, workers, the housekeeper and the record; and what survives an interruption."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
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
from key_operators import Ceremony, new_key, reference
from onecard.v1 import common_pb2, cryptography_pb2
from onecard.v1 import keys_pb2 as pb
from virtual_card import VirtualCard

from crypto.key_store.software import SoftwareKeyStore
from crypto.key_store.wrapped_file import writer_lock
from crypto.keys import Cipher, KeyRef, KeyUsage
from server.housekeeper import key_jobs
from server.key_calls import KeyCalls
from server.keys.execution import AdministeredKeys
from server.keys.upkeep import destroy_due_keys, expire_proposals
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


async def test_an_interrupted_approval_is_mended_by_approving_again(
    ceremony: Ceremony, key_core: Core
) -> None:
    name = "imk-interrupted"
    proposed = await ceremony.one.propose(generate=new_key(name))
    # What a worker does before it dies: the key store has the key, the database knows nothing of it.
    store = SoftwareKeyStore.open(key_core.data_dir / "keys")
    made = store.generate(
        name, cipher=Cipher.SM4, usage=KeyUsage.IMK_AC, size=16, change_id=proposed.change_id
    )
    refusal = await refusal_of(ceremony.two.reject(proposed.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_CHANGE_STATE")
    # Time does not matter any more.
    await key_core.database.execute(
        "UPDATE key_changes SET proposed_at = now() - interval '2 days' WHERE change_id = $1",
        proposed.change_id,
    )
    done = await ceremony.two.approve(proposed.change_id)
    assert (done.key.version, done.key.kcv) == (1, made.kcv)
    assert len(await ceremony.one.keys(name)) == 1
    assert [step for step, *_ in await ceremony.one.steps(name)] == ["PROPOSED", "REFUSED", "EXECUTED"]


@pytest.mark.parametrize("kind", ["rotate", "activate", "retire", "destroy", "cancel_destruction"])
async def test_every_other_interrupted_approval_is_mended_too(
    ceremony: Ceremony, key_core: Core, kind: str
) -> None:
    name = f"imk-cut-{kind.replace('_', '-')}"
    await ceremony.active_key(name)
    await ceremony.done(generate=new_key(name))
    first, second = reference(name, 1), reference(name, 2)
    if kind == "cancel_destruction":
        await ceremony.done(destroy=pb.DestroyKey(key=second))
    changes: dict[str, Any] = {
        "rotate": pb.RotateKey(name=name),
        "activate": pb.ActivateKey(key=second),
        "retire": pb.RetireKey(key=first),
        "destroy": pb.DestroyKey(key=second),
        "cancel_destruction": pb.CancelKeyDestruction(key=second),
    }
    proposed = await ceremony.one.propose(**{kind: changes[kind]})
    store = SoftwareKeyStore.open(key_core.data_dir / "keys")
    executed = {
        "rotate": lambda: store.rotate(name, change_id=proposed.change_id),
        "activate": lambda: store.activate(KeyRef(name, 2)),
        "retire": lambda: store.retire(KeyRef(name, 1)),
        "destroy": lambda: store.schedule_destruction(KeyRef(name, 2), int(time.time()) + 1_000_000),
        "cancel_destruction": lambda: store.cancel_destruction(KeyRef(name, 2)),
    }[kind]()
    done = await ceremony.two.approve(proposed.change_id)
    assert done.change.state == pb.KEY_CHANGE_STATE_EXECUTED
    assert (done.key.version, done.key.kcv) == (executed.version, executed.kcv)
    assert len(await ceremony.one.keys(name)) == (3 if kind == "rotate" else 2)


async def test_twins_that_approve_at_once_make_one_key(ceremony: Ceremony) -> None:
    name = "imk-twins"
    proposed = await ceremony.one.propose(generate=new_key(name))
    answers = await asyncio.gather(
        ceremony.two.approve(proposed.change_id),
        ceremony.three.approve(proposed.change_id),
        ceremony.two.reject(proposed.change_id),
        return_exceptions=True,
    )
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
    change = await ceremony.one.change(proposed.change_id)
    is_made = change.state == pb.KEY_CHANGE_STATE_EXECUTED
    assert len(await ceremony.one.keys(name)) == (1 if is_made else 0)


async def test_an_approval_whose_caller_hung_up_runs_to_its_end(ceremony: Ceremony, key_core: Core) -> None:
    name = "imk-hung-up"
    proposed = await ceremony.one.propose(generate=new_key(name))
    request = pb.ApproveKeyChangeRequest(change_id=proposed.change_id)
    # Another writer holds the key store, so that the approval waits inside it, with the change's row locked.
    with writer_lock(key_core.data_dir / "keys"):
        refusal = await refusal_of(ceremony.two.stub.ApproveKeyChange(request, timeout=0.5))
        assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
        rejection = asyncio.create_task(refusal_of(ceremony.three.reject(proposed.change_id)))
        await asyncio.sleep(0.3)
        assert not rejection.done()
    assert (await rejection).reason == "KEY_CHANGE_STATE"
    change = await ceremony.one.change(proposed.change_id)
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
    await key_core.database.execute(
        "UPDATE key_changes SET proposed_at = now() - interval '24 hours' WHERE change_id = $1",
        old.change_id,
    )
    await expire_proposals(*housekeeping)
    expired = await ceremony.one.change(old.change_id)
    assert (expired.state, expired.decided_by) == (pb.KEY_CHANGE_STATE_EXPIRED, "housekeeper")
    assert (await ceremony.one.change(young.change_id)).state == pb.KEY_CHANGE_STATE_PROPOSED
    kept = "SELECT component_sealed IS NOT NULL FROM key_components WHERE change_id = $1"
    assert await key_core.database.fetchval(kept, old.change_id) is False
    assert await key_core.database.fetchval(kept, young.change_id) is True
    last = (await ceremony.one.audit("imk-expires"))[-1]
    assert (last.step, last.participant, last.change_id) == ("EXPIRED", "housekeeper", old.change_id)
    assert last.detail == "IMPORT_COMPONENTS"


async def test_what_the_key_store_has_done_does_not_expire(
    ceremony: Ceremony, key_core: Core, housekeeping: tuple[Any, AdministeredKeys]
) -> None:
    proposed = await ceremony.one.propose(generate=new_key("imk-not-expired"))
    store = SoftwareKeyStore.open(key_core.data_dir / "keys")
    store.generate("imk-not-expired", cipher=Cipher.SM4, usage=KeyUsage.IMK_AC, change_id=proposed.change_id)
    await key_core.database.execute(
        "UPDATE key_changes SET proposed_at = now() - interval '2 days' WHERE change_id = $1",
        proposed.change_id,
    )
    await expire_proposals(*housekeeping)
    assert (await ceremony.one.change(proposed.change_id)).state == pb.KEY_CHANGE_STATE_PROPOSED


async def test_the_housekeeper_runs_both_jobs(key_core: Core) -> None:
    settings = replace(Settings(data_dir=key_core.data_dir), workers=1)
    async with asyncpg.create_pool(key_core.dsn, min_size=1, max_size=2) as pool:
        jobs = {job.name: job for job in key_jobs(settings)}
        assert set(jobs) == {"expire_key_proposals", "destroy_due_keys"}
        for job in jobs.values():
            await job.run(pool)


async def test_the_audit_is_append_only_and_without_gaps(ceremony: Ceremony, key_core: Core) -> None:
    await ceremony.done(generate=new_key("imk-audited"))
    entries = await ceremony.one.audit("imk-audited")
    assert [entry.step for entry in entries] == ["PROPOSED", "EXECUTED"]
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
