"""Keys are made, used and given up by two operators, and every step is on record."""

from typing import Any

import asyncpg
import grpc
import pytest
from core_under_test import CALL_S, Core, new_id, refusal_of
from key_operators import WHY, Ceremony, KeyOperator, aged, new_key, reference
from onecard.v1 import keys_pb2 as pb

STATE = pb.KeyLifeState
NEW_IMK = "usage=IMK_AC cipher=SM4 key_bytes=16 exportability=NON_EXPORTABLE card_key_option=A"


async def test_a_key_is_made_by_one_operator_and_another(ceremony: Ceremony) -> None:
    proposed = await ceremony.one.propose(generate=new_key("imk-made", card_key_option=pb.CARD_KEY_OPTION_B))
    assert proposed.state == pb.KEY_CHANGE_STATE_PROPOSED
    assert (proposed.kind, proposed.key_name, proposed.key_version) == ("GENERATE", "imk-made", 0)
    assert (proposed.proposed_by, proposed.decided_by, proposed.justification) == ("custodian-01", "", WHY)
    assert await ceremony.one.keys("imk-made") == []

    done = await ceremony.two.approve(proposed.change_id)
    assert done.change.state == pb.KEY_CHANGE_STATE_EXECUTED
    assert (done.change.key_version, done.change.decided_by) == (1, "custodian-02")
    assert done.change.decided_at_unix_ms >= done.change.proposed_at_unix_ms > 0
    assert done.key_block == ""
    (key,) = await ceremony.three.keys("imk-made")
    assert key == done.key
    assert (key.version, key.usage, key.state) == (1, "IMK_AC", STATE.KEY_LIFE_STATE_PRE_ACTIVE)
    assert key.exportability == pb.KEY_EXPORTABILITY_NON_EXPORTABLE
    assert key.card_key_option == pb.CARD_KEY_OPTION_B
    assert len(key.kcv) == 6
    details = NEW_IMK.replace("option=A", "option=B")
    assert list(proposed.details) == list(done.change.details) == details.split()
    assert await ceremony.one.steps("imk-made") == [
        ("PROPOSED", "custodian-01", f"GENERATE {details}"),
        ("APPROVED", "custodian-02", f"GENERATE {details}"),
        ("EXECUTED", "custodian-02", f"GENERATE kcv={key.kcv} {details}"),
    ]


async def test_a_key_goes_through_its_life(ceremony: Ceremony) -> None:
    name = "imk-life"
    first, second = reference(name, 1), reference(name, 2)
    assert (await ceremony.active_key(name)).state == STATE.KEY_LIFE_STATE_ACTIVE
    rotated = await ceremony.done(rotate=pb.RotateKey(name=name))
    assert (rotated.key.version, rotated.key.state) == (2, STATE.KEY_LIFE_STATE_ACTIVE)
    assert rotated.change.key_version == 2
    assert [key.state for key in await ceremony.one.keys(name)] == [
        STATE.KEY_LIFE_STATE_VERIFY_ONLY,
        STATE.KEY_LIFE_STATE_ACTIVE,
    ]
    retired = await ceremony.done(retire=pb.RetireKey(key=second))
    assert retired.key.state == STATE.KEY_LIFE_STATE_VERIFY_ONLY
    doomed = await ceremony.done(destroy=pb.DestroyKey(key=first))
    days_7_ms = 7 * 24 * 3600 * 1000
    until_ms = doomed.key.destroy_at_unix_ms - doomed.change.decided_at_unix_ms
    assert abs(until_ms - days_7_ms) < 60_000
    assert doomed.key.state == STATE.KEY_LIFE_STATE_VERIFY_ONLY
    spared = await ceremony.done(cancel_destruction=pb.CancelKeyDestruction(key=first))
    assert spared.key.destroy_at_unix_ms == 0


async def test_the_proposer_does_not_approve(ceremony: Ceremony) -> None:
    proposed = await ceremony.one.propose(generate=new_key("imk-alone"))
    refusal = await refusal_of(ceremony.one.approve(proposed.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SECOND_PERSON_REQUIRED")
    assert await ceremony.one.keys("imk-alone") == []
    assert await ceremony.one.steps("imk-alone") == [
        ("PROPOSED", "custodian-01", f"GENERATE {NEW_IMK}"),
        ("REFUSED", "custodian-01", "GENERATE SECOND_PERSON_REQUIRED"),
    ]
    # Also once it is done: the answer is another's.
    await ceremony.two.approve(proposed.change_id)
    refusal = await refusal_of(ceremony.one.approve(proposed.change_id))
    assert refusal.reason == "SECOND_PERSON_REQUIRED"


async def test_the_schema_keeps_the_second_person_too(ceremony: Ceremony, key_core: Core) -> None:
    proposed = await ceremony.one.propose(generate=new_key("imk-schema"))
    for decided_by in ("custodian-01", None):
        with pytest.raises(asyncpg.CheckViolationError):
            await key_core.database.execute(
                "UPDATE key_changes SET state = 'APPROVED', decided_by = $2, decided_at = now()"
                " WHERE change_id = $1",
                proposed.change_id,
                decided_by,
            )
    # Nor is it carried out without an approval, or made as if it had been.
    for statement in (
        "UPDATE key_changes SET state = 'EXECUTED', decided_by = 'custodian-02', decided_at = now()"
        " WHERE change_id = $1",
        "INSERT INTO key_changes (change_id, kind, key_name, state, justification, request, details, proposed_by,"
        " decided_by, decided_at) VALUES (gen_random_uuid(), 'GENERATE', $1::uuid::text, 'APPROVED', '', '', '{}',"
        " 'custodian-01', 'custodian-02', now())",
    ):
        with pytest.raises(asyncpg.RestrictViolationError):
            await key_core.database.execute(statement, proposed.change_id)


@pytest.mark.parametrize(
    "assignment",
    [
        "change_id = gen_random_uuid()",
        "change_number = DEFAULT",
        "kind = 'ROTATE'",
        "key_name = 'imk-other'",
        "key_version = 7",
        "components_needed = 2, kind = 'IMPORT_COMPONENTS'",
        "justification = 'other'",
        "request = 'other'",
        "details = '{usage=BDK}'",
        "under_version = 1, kind = 'EXPORT_BLOCK'",
        "proposed_by = 'custodian-03'",
        "proposed_at = now()",
    ],
)
async def test_what_was_proposed_stays_whatever_becomes_of_it(
    ceremony: Ceremony, key_core: Core, assignment: str
) -> None:
    proposed = await ceremony.one.propose(generate=new_key("imk-guarded"))
    for state in ("PROPOSED", "APPROVED", "REJECTED"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await key_core.database.execute(
                f"UPDATE key_changes SET {assignment}, state = $2, decided_by = 'custodian-02',"
                " decided_at = now() WHERE change_id = $1",
                proposed.change_id,
                state,
            )
    await ceremony.one.reject(proposed.change_id)


@pytest.mark.parametrize("table", ["key_audit", "key_changes", "key_components"])
async def test_the_record_is_neither_truncated_nor_deleted(
    ceremony: Ceremony, key_core: Core, table: str
) -> None:
    change = await ceremony.one.propose(
        import_components=pb.ImportKeyComponents(key=new_key("imk-kept"), components=2, kcv="ABCDEF")
    )
    await ceremony.one.submit(change.change_id, b"\x01" * 16)
    for statement in (f"TRUNCATE {table} CASCADE", f"DELETE FROM {table}"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await key_core.database.execute(statement)
    await ceremony.one.reject(change.change_id)


@pytest.mark.parametrize(
    "assignment",
    [
        "component_sealed = 'other'",
        "component_sealed = NULL, kcv = '000000'",
        "component_sealed = NULL, participant_id = 'custodian-03'",
        "component_sealed = NULL, component_number = 3",
        "component_sealed = NULL, request_id = gen_random_uuid()",
    ],
)
async def test_a_component_is_dropped_and_never_changed(
    ceremony: Ceremony, key_core: Core, assignment: str
) -> None:
    change = await ceremony.one.propose(
        import_components=pb.ImportKeyComponents(key=new_key("imk-component"), components=2, kcv="ABCDEF")
    )
    await ceremony.one.submit(change.change_id, b"\x01" * 16)
    with pytest.raises(asyncpg.RestrictViolationError):
        await key_core.database.execute(
            f"UPDATE key_components SET {assignment} WHERE change_id = $1",
            change.change_id,
        )
    await ceremony.one.reject(change.change_id)


async def test_a_decided_change_stays_as_it_is(ceremony: Ceremony, key_core: Core) -> None:
    proposed = await ceremony.one.propose(generate=new_key("imk-decided"))
    await ceremony.two.approve(proposed.change_id)
    for statement in (
        "UPDATE key_changes SET state = 'PROPOSED', decided_by = NULL, decided_at = NULL WHERE change_id = $1",
        "DELETE FROM key_changes WHERE change_id = $1",
    ):
        with pytest.raises(asyncpg.RestrictViolationError):
            await key_core.database.execute(statement, proposed.change_id)
    for call in (ceremony.three.approve, ceremony.three.reject):
        refusal = await refusal_of(call(proposed.change_id))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "KEY_CHANGE_STATE",
        )


async def test_approving_again_gives_the_same_answer(ceremony: Ceremony) -> None:
    proposed = await ceremony.one.propose(generate=new_key("imk-again"))
    first = await ceremony.two.approve(proposed.change_id)
    assert await ceremony.two.approve(proposed.change_id) == first
    assert len(await ceremony.one.keys("imk-again")) == 1
    steps = ["PROPOSED", "APPROVED", "EXECUTED"]
    assert [step for step, *_ in await ceremony.one.steps("imk-again")] == steps


async def test_a_repetition_tells_the_key_as_it_is_and_does_nothing(ceremony: Ceremony) -> None:
    name = "imk-retold"
    await ceremony.active_key(name)
    await ceremony.done(generate=new_key(name))
    destroyed = await ceremony.done(destroy=pb.DestroyKey(key=reference(name, 2)))
    await ceremony.done(cancel_destruction=pb.CancelKeyDestruction(key=reference(name, 2)))
    assert (await ceremony.two.approve(destroyed.change.change_id)).key.destroy_at_unix_ms == 0


async def test_a_repetition_is_told_within_ten_minutes(ceremony: Ceremony, key_core: Core) -> None:
    proposed = await ceremony.one.propose(generate=new_key("imk-told-late"))
    await ceremony.two.approve(proposed.change_id)
    await aged(key_core, proposed.change_id, "decided_at", "9 minutes 50 seconds")
    await ceremony.two.approve(proposed.change_id)
    await aged(key_core, proposed.change_id, "decided_at", "10 minutes")
    refusal = await refusal_of(ceremony.two.approve(proposed.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_CHANGE_STATE")


async def test_a_change_is_rejected_or_withdrawn(ceremony: Ceremony) -> None:
    rejected = await ceremony.one.propose(generate=new_key("imk-rejected"))
    answer = await ceremony.two.reject(rejected.change_id)
    assert (answer.state, answer.decided_by) == (pb.KEY_CHANGE_STATE_REJECTED, "custodian-02")
    assert await ceremony.two.reject(rejected.change_id) == answer
    withdrawn = await ceremony.one.propose(generate=new_key("imk-rejected"))
    assert (await ceremony.one.reject(withdrawn.change_id)).decided_by == "custodian-01"
    refusal = await refusal_of(ceremony.two.approve(withdrawn.change_id))
    assert refusal.reason == "KEY_CHANGE_STATE"
    assert await ceremony.one.keys("imk-rejected") == []
    steps = [step for step, *_ in await ceremony.one.steps("imk-rejected")]
    assert steps == ["PROPOSED", "REJECTED", "PROPOSED", "REJECTED", "REFUSED"]


async def test_a_change_that_waited_a_day_is_no_longer_approved(ceremony: Ceremony, key_core: Core) -> None:
    proposed = await ceremony.one.propose(generate=new_key("imk-late"))
    await aged(key_core, proposed.change_id, "proposed_at", "24 hours")
    assert (await refusal_of(ceremony.two.approve(proposed.change_id))).reason == "KEY_CHANGE_STATE"


async def test_the_same_request_id_is_one_proposal(ceremony: Ceremony) -> None:
    request_id = new_id()
    first = await ceremony.one.propose(request_id=request_id, generate=new_key("imk-once"))
    assert first.change_id == request_id
    spelled = request_id.upper()
    assert await ceremony.one.propose(request_id=spelled, generate=new_key("imk-once")) == first
    others: list[tuple[KeyOperator, dict[str, Any], str]] = [
        (ceremony.one, {"generate": new_key("imk-other")}, "change"),
        (ceremony.one, {"generate": new_key("imk-once"), "justification": "other"}, "justification"),
        (ceremony.two, {"generate": new_key("imk-once")}, "caller"),
    ]
    for operator, fields, field in others:
        refusal = await refusal_of(operator.propose(request_id=request_id, **fields))
        assert (refusal.code, refusal.reason, refusal.field) == (
            grpc.StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
            field,
        )
    # Repeated after the approval it tells how the change ended, and makes no second key.
    await ceremony.two.approve(request_id)
    again = await ceremony.one.propose(request_id=request_id, generate=new_key("imk-once"))
    assert again.state == pb.KEY_CHANGE_STATE_EXECUTED
    assert len(await ceremony.one.keys("imk-once")) == 1


async def test_lists_are_read_page_by_page(ceremony: Ceremony) -> None:
    names = [f"imk-page-{n}" for n in range(3)]
    proposed = [await ceremony.one.propose(generate=new_key(name)) for name in names]
    stub, seen, token = ceremony.one.stub, [], ""
    while len(seen) < 3:
        request = pb.ListKeyChangesRequest(only_proposed=True, page_size=1, page_token=token)
        page = await stub.ListKeyChanges(request, timeout=CALL_S)
        assert len(page.changes) == 1
        seen += page.changes
        token = page.next_page_token
    assert [change.change_id for change in seen] == [change.change_id for change in reversed(proposed)]
    for change in proposed:
        await ceremony.one.reject(change.change_id)
    request = pb.ListKeyChangesRequest(only_proposed=True, page_size=1000)
    waiting = (await stub.ListKeyChanges(request, timeout=CALL_S)).changes
    assert not {change.key_name for change in waiting} & set(names)

    first = await stub.ListKeyAudit(pb.ListKeyAuditRequest(key_name=names[0], page_size=1), timeout=CALL_S)
    assert [entry.step for entry in first.entries] == ["REJECTED"]
    rest = pb.ListKeyAuditRequest(key_name=names[0], page_size=1, page_token=first.next_page_token)
    last = await stub.ListKeyAudit(rest, timeout=CALL_S)
    assert ([entry.step for entry in last.entries], last.next_page_token) == (["PROPOSED"], "")


async def test_the_second_operator_is_shown_what_the_change_is(ceremony: Ceremony) -> None:
    exportable = {"exportability": pb.KEY_EXPORTABILITY_EXPORTABLE}
    key = await ceremony.active_key("zpk-shown", usage="PIN_ENCRYPTION", **exportable)
    await ceremony.active_key("imk-shown")
    existing = f"usage=PIN_ENCRYPTION cipher=SM4 exportability=EXPORTABLE kcv={key.kcv}"
    imk = "usage=IMK_AC cipher=SM4 exportability=NON_EXPORTABLE card_key_option=A"
    stronger = new_key("zpk-shown-aes", "PIN_ENCRYPTION", "AES", key_bytes=32, **exportable)
    ref = reference("zpk-shown", 1)
    export = pb.ExportKeyBlock(key=ref, under=reference("kbpk-sm4"))
    block = (await ceremony.done(export_block=export)).key_block
    cases: list[tuple[dict[str, Any], str]] = [
        ({"generate": stronger}, "usage=PIN_ENCRYPTION cipher=AES key_bytes=32 exportability=EXPORTABLE"),
        (
            {"import_components": pb.ImportKeyComponents(key=stronger, components=3, kcv="abcdef")},
            "usage=PIN_ENCRYPTION cipher=AES key_bytes=32 exportability=EXPORTABLE kcv=ABCDEF components=3",
        ),
        (
            {"import_block": pb.ImportKeyBlock(name="zpk-in", key_block=block, under=reference("kbpk-sm4"))},
            "usage=PIN_ENCRYPTION cipher=SM4 key_bytes=16 exportability=NON_EXPORTABLE"
            f" kcv={key.kcv} under=kbpk-sm4/1",
        ),
        ({"export_block": export}, f"{existing} under=kbpk-sm4/1"),
        ({"rotate": pb.RotateKey(name="imk-shown")}, imk),
        ({"retire": pb.RetireKey(key=ref)}, existing),
    ]
    for change, expected in cases:
        proposed = await ceremony.one.propose(**change)
        shown = await ceremony.two.change(proposed.change_id)
        assert " ".join(shown.details) == " ".join(proposed.details) == expected
        step = (await ceremony.two.audit(shown.key_name))[-1]
        assert (step.step, step.detail) == ("PROPOSED", f"{shown.kind} {expected}")
        assert block not in str(shown)
        await ceremony.one.reject(proposed.change_id)


async def test_changes_that_differ_in_one_point_look_different(ceremony: Ceremony) -> None:
    changes = [
        await ceremony.one.propose(generate=new_key("imk-blind", **fields))
        for fields in ({}, {"exportability": pb.KEY_EXPORTABILITY_EXPORTABLE}, {"card_key_option": 2})
    ]
    assert len({tuple(change.details) for change in changes}) == 3
    for change in changes:
        await ceremony.one.reject(change.change_id)
