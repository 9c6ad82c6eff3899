"""Keys come in by components of several operators or as key blocks, and leave as key blocks; nothing shows them."""

import asyncio
import secrets
from typing import Any

import asyncpg
import grpc
import pytest
from core_under_test import Core, new_id, refusal_of
from integration.running_instance import Instance
from key_operators import Ceremony, aged, new_key, reference
from onecard.v1 import keys_pb2 as pb

from crypto.key_block import unwrap_key
from crypto.key_components import KeyComponent
from crypto.key_store.software import SoftwareKeyStore
from crypto.keys import Cipher, Key, KeyRef, KeyUsage

EXPORTABLE = pb.KEY_EXPORTABILITY_EXPORTABLE


def xor(*values: bytes) -> bytes:
    whole = 0
    for value in values:
        whole ^= int.from_bytes(value)
    return whole.to_bytes(len(values[0]))


def components_of(count: int, size: int = 16) -> tuple[list[bytes], Key]:
    """Random components, and the AES key they make."""
    parts = [secrets.token_bytes(size) for _ in range(count)]
    return parts, Key(Cipher.AES, KeyUsage.IMK_AC, xor(*parts))


def wanted(name: str, *, kcv: str, components: int, key_bytes: int = 0) -> dict[str, Any]:
    key = new_key(name, cipher="AES", key_bytes=key_bytes)
    return {"import_components": pb.ImportKeyComponents(key=key, components=components, kcv=kcv)}


def fresh_store(core: Core) -> SoftwareKeyStore:
    return SoftwareKeyStore.open(core.data_dir / "keys")


async def test_three_operators_bring_a_key_together(
    ceremony: Ceremony, key_core: Core, key_instance: Instance
) -> None:
    name = "imk-components"
    parts, whole = components_of(3, size=32)
    change = await ceremony.one.propose(**wanted(name, kcv=whole.kcv().lower(), components=3, key_bytes=32))
    assert (change.components_needed, change.components_given) == (3, 0)
    operators = (ceremony.one, ceremony.two, ceremony.three)
    for number, (operator, part) in enumerate(zip(operators, parts, strict=True), 1):
        if number < 3:
            refusal = await refusal_of(ceremony.three.approve(change.change_id))
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "KEY_CHANGE_STATE",
            )
        answer = await operator.submit(change.change_id, part)
        assert answer.component_kcv == KeyComponent(Cipher.AES, part).kcv()
        assert answer.components_missing == 3 - number
    sealed = await key_core.database.fetch(
        "SELECT component_sealed FROM key_components WHERE change_id = $1", change.change_id
    )
    assert len(sealed) == 3
    assert not any(part in row[0] for row in sealed for part in parts)

    done = await ceremony.three.approve(change.change_id)
    assert (done.key.kcv, done.key.version) == (whole.kcv(), 1)
    assert done.change.components_given == 3
    await ceremony.done(activate=pb.ActivateKey(key=reference(name, 1)))
    assert fresh_store(key_core)._list.entry(KeyRef(name, 1))[1] == whole
    # Components are dropped when the change is decided; who brought them stays.
    rows = await key_core.database.fetch(
        "SELECT component_sealed, participant_id FROM key_components WHERE change_id = $1"
        " ORDER BY component_number",
        change.change_id,
    )
    assert [tuple(row) for row in rows] == [(None, f"custodian-0{n}") for n in (1, 2, 3)]
    kcvs = [KeyComponent(Cipher.AES, part).kcv() for part in parts]
    steps = await ceremony.one.steps(name)
    assert [step for step in steps if step[0] == "COMPONENT_SUBMITTED"] == [
        ("COMPONENT_SUBMITTED", f"custodian-0{n}", f"component {n} kcv {kcv}")
        for n, kcv in enumerate(kcvs, 1)
    ]
    # Longer than access lines are gathered.
    await asyncio.sleep(0.5)
    printed = key_instance.errors() + key_instance.output()
    assert "SubmitKeyComponent" in printed
    for secret in (*parts, whole.value):
        for text in (secret.hex(), secret.hex().upper(), repr(secret)[2:-1], secret.decode("latin-1")):
            assert text not in printed


async def test_components_that_make_another_key_are_rejected(ceremony: Ceremony, key_core: Core) -> None:
    name = "imk-wrong-kcv"
    parts, whole = components_of(2)
    other = "000000" if whole.kcv() != "000000" else "000001"
    change = await ceremony.one.propose(**wanted(name, kcv=other, components=2))
    await ceremony.one.submit(change.change_id, parts[0])
    await ceremony.two.submit(change.change_id, parts[1])
    refusal = await refusal_of(ceremony.two.approve(change.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_CHECK_VALUE_WRONG")
    assert whole.kcv() not in refusal.text
    assert (await ceremony.one.change(change.change_id)).state == pb.KEY_CHANGE_STATE_REJECTED
    assert (await ceremony.one.steps(name))[-1] == ("REJECTED", "custodian-02", "KEY_CHECK_VALUE_WRONG")
    assert await ceremony.one.keys(name) == []
    kept = "SELECT count(*) FROM key_components WHERE change_id = $1 AND component_sealed IS NOT NULL"
    assert await key_core.database.fetchval(kept, change.change_id) == 0


async def test_equal_components_make_no_key(ceremony: Ceremony) -> None:
    part = secrets.token_bytes(16)
    change = await ceremony.one.propose(**wanted("imk-equal", kcv="ABCDEF", components=2))
    await ceremony.one.submit(change.change_id, part)
    await ceremony.two.submit(change.change_id, part)
    assert (await refusal_of(ceremony.three.approve(change.change_id))).reason == "KEY_CHECK_VALUE_WRONG"


async def test_an_operator_brings_one_component_only(ceremony: Ceremony, key_core: Core) -> None:
    name = "imk-greedy"
    change = await ceremony.one.propose(**wanted(name, kcv="ABCDEF", components=2))
    await ceremony.one.submit(change.change_id, secrets.token_bytes(16))
    refusal = await refusal_of(ceremony.one.submit(change.change_id, secrets.token_bytes(16)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SECOND_PERSON_REQUIRED")
    last = (await ceremony.one.steps(name))[-1]
    assert last == ("REFUSED", "custodian-01", "IMPORT_COMPONENTS SECOND_PERSON_REQUIRED")
    with pytest.raises(asyncpg.UniqueViolationError):
        await key_core.database.execute(
            "INSERT INTO key_components VALUES ($1, 2, 'custodian-01', gen_random_uuid(), NULL, 'ABCDEF')",
            change.change_id,
        )
    await ceremony.two.submit(change.change_id, secrets.token_bytes(16))
    refusal = await refusal_of(ceremony.three.submit(change.change_id, secrets.token_bytes(16)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_CHANGE_STATE")


async def test_a_change_without_components_takes_none(ceremony: Ceremony) -> None:
    change = await ceremony.one.propose(generate=new_key("imk-no-components"))
    refusal = await refusal_of(ceremony.two.submit(change.change_id, bytes(16)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_CHANGE_STATE")


async def test_a_component_is_as_long_as_the_key_and_not_zero(ceremony: Ceremony) -> None:
    change = await ceremony.one.propose(**wanted("imk-short", kcv="ABCDEF", components=2))
    for component in (bytes(16), secrets.token_bytes(15), secrets.token_bytes(32), secrets.token_bytes(33)):
        refusal = await refusal_of(ceremony.two.submit(change.change_id, component))
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "component")


async def test_the_same_request_id_is_one_component(ceremony: Ceremony) -> None:
    (part, second), whole = components_of(2)
    change = await ceremony.one.propose(**wanted("imk-repeated", kcv=whole.kcv(), components=2))
    elsewhere = await ceremony.one.propose(**wanted("imk-elsewhere", kcv="ABCDEF", components=2))
    request_id = new_id()
    first = await ceremony.one.submit(change.change_id, part, request_id=request_id)
    assert await ceremony.one.submit(change.change_id, part, request_id=request_id.upper()) == first
    cases = [
        (ceremony.one, change.change_id, second, "component"),
        (ceremony.two, change.change_id, part, "caller"),
        (ceremony.one, elsewhere.change_id, part, "change_id"),
    ]
    for operator, change_id, component, field in cases:
        refusal = await refusal_of(operator.submit(change_id, component, request_id=request_id))
        assert (refusal.code, refusal.reason, refusal.field) == (
            grpc.StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
            field,
        )
    await ceremony.two.submit(change.change_id, second)
    await ceremony.three.approve(change.change_id)
    # The component is gone by now; the answer is the same.
    assert await ceremony.one.submit(change.change_id, part, request_id=request_id) == first
    refusal = await refusal_of(ceremony.one.submit(change.change_id, second, request_id=request_id))
    assert refusal.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("suffix", ["sm4", "tdes", "aes"])
async def test_a_key_travels_as_a_block_from_one_name_to_another(
    ceremony: Ceremony, key_core: Core, suffix: str
) -> None:
    name, kbpk = f"zpk-travels-{suffix}", reference(f"kbpk-{suffix}")
    key = await ceremony.active_key(
        name, usage="PIN_ENCRYPTION", cipher=suffix.upper(), exportability=EXPORTABLE
    )
    ref = reference(name, key.version)
    proposed = await ceremony.one.propose(export_block=pb.ExportKeyBlock(key=ref, under=kbpk))
    exported = await ceremony.two.approve(proposed.change_id)
    assert exported.key == key
    # Told again to whoever approved it, wrapped anew, and on record both times.
    again = await ceremony.two.approve(proposed.change_id)
    assert again.key_block != exported.key_block
    opened = [
        unwrap_key(fresh_store(key_core).open_key(KeyRef(kbpk.name, 1), KeyUsage.KEY_BLOCK_PROTECTION), block)
        for block in (exported.key_block, again.key_block)
    ]
    assert opened[0].key == opened[1].key
    details = [detail for step, _, detail in await ceremony.one.steps(name) if step == "EXECUTED"]
    exports = f"EXPORT_BLOCK kcv={key.kcv} {{}} under={kbpk.name}/1"
    others = f"usage=PIN_ENCRYPTION cipher={suffix.upper()} exportability=EXPORTABLE"
    assert details[-2:] == [exports.format(others), exports.format(others) + " again"]
    refusal = await refusal_of(ceremony.three.approve(proposed.change_id))
    assert refusal.reason == "KEY_CHANGE_STATE"

    block = pb.ImportKeyBlock(name=f"{name}-twin", key_block=exported.key_block, under=kbpk)
    imported = await ceremony.done(import_block=block)
    assert (imported.key.kcv, imported.key.usage) == (key.kcv, "PIN_ENCRYPTION")
    assert (imported.key.version, imported.key.cipher) == (1, key.cipher)
    # What the block allows its receiver, and no more.
    assert imported.key.exportability == pb.KEY_EXPORTABILITY_NON_EXPORTABLE


async def test_a_key_is_exchanged_before_it_is_put_into_use(ceremony: Ceremony) -> None:
    new = pb.GenerateKey(
        name="zpk-early", usage="PIN_ENCRYPTION", cipher=pb.KEY_CIPHER_SM4, exportability=EXPORTABLE
    )
    key = (await ceremony.done(generate=new)).key
    assert key.state == pb.KEY_LIFE_STATE_PRE_ACTIVE
    export = pb.ExportKeyBlock(key=reference("zpk-early", key.version), under=reference("kbpk-sm4"))
    assert (await ceremony.done(export_block=export)).key_block.startswith("S")


async def test_a_key_that_may_not_leave_is_not_exported(ceremony: Ceremony) -> None:
    key = await ceremony.active_key("zpk-stays", usage="PIN_ENCRYPTION")
    export = pb.ExportKeyBlock(key=reference("zpk-stays", key.version), under=reference("kbpk-sm4"))
    refusal = await ceremony.refused(export_block=export)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_USAGE")


async def test_a_weaker_key_protects_no_stronger_one(ceremony: Ceremony) -> None:
    key = await ceremony.active_key(
        "zpk-strong", usage="PIN_ENCRYPTION", cipher="AES", key_bytes=32, exportability=EXPORTABLE
    )
    export = pb.ExportKeyBlock(key=reference("zpk-strong", key.version), under=reference("kbpk-tdes"))
    proposed = await ceremony.one.propose(export_block=export)
    refusal = await refusal_of(ceremony.two.approve(proposed.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_USAGE")
    # Approved, and then refused for good: that is what the record says.
    change = await ceremony.one.change(proposed.change_id)
    assert (change.state, change.decided_by) == (pb.KEY_CHANGE_STATE_FAILED, "custodian-02")
    steps = await ceremony.one.steps("zpk-strong")
    assert [step for step, *_ in steps[-3:]] == ["PROPOSED", "APPROVED", "FAILED"]
    assert steps[-1] == ("FAILED", "custodian-02", "EXPORT_BLOCK KEY_USAGE")
    assert (await refusal_of(ceremony.two.approve(proposed.change_id))).reason == "KEY_CHANGE_STATE"


async def test_the_protecting_key_is_the_one_that_was_proposed(ceremony: Ceremony) -> None:
    """Also when version 0 was said, and another version is active by now."""
    kbpk = await ceremony.active_key("kbpk-pinned", usage="KEY_BLOCK_PROTECTION", cipher="AES")
    key = await ceremony.active_key("zpk-pinned", usage="PIN_ENCRYPTION", exportability=EXPORTABLE)
    ref, under = reference("zpk-pinned", key.version), reference("kbpk-pinned")
    export = pb.ExportKeyBlock(key=ref, under=under)
    done, waiting = [await ceremony.one.propose(export_block=export) for _ in range(2)]
    block = (await ceremony.two.approve(done.change_id)).key_block
    imported = pb.ImportKeyBlock(name="zpk-pinned-twin", key_block=block, under=under)
    to_import = await ceremony.one.propose(import_block=imported)
    await ceremony.done(rotate=pb.RotateKey(name="kbpk-pinned"))
    assert f"under=kbpk-pinned/{kbpk.version}" in waiting.details
    for change in (done, waiting):
        refusal = await refusal_of(ceremony.two.approve(change.change_id))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_STATE")
    assert (await ceremony.two.approve(to_import.change_id)).key.kcv == key.kcv


async def test_an_exported_key_is_told_again_for_ten_minutes_only(ceremony: Ceremony, key_core: Core) -> None:
    await ceremony.active_key("zpk-told", usage="PIN_ENCRYPTION", exportability=EXPORTABLE)
    export = pb.ExportKeyBlock(key=reference("zpk-told", 1), under=reference("kbpk-sm4"))
    done = await ceremony.done(export_block=export)
    assert (await ceremony.two.approve(done.change.change_id)).key_block
    await aged(key_core, done.change.change_id, "decided_at", "10 minutes")
    refusal = await refusal_of(ceremony.two.approve(done.change.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_CHANGE_STATE")


async def test_no_key_leaves_under_itself_whatever_version_is_said(ceremony: Ceremony) -> None:
    name = "kbpk-self"
    await ceremony.active_key(name, usage="KEY_BLOCK_PROTECTION", cipher="AES", exportability=EXPORTABLE)
    for version in (0, 1):
        export = pb.ExportKeyBlock(key=reference(name, 1), under=reference(name, version))
        refusal = await ceremony.refused(export_block=export)
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "export_block.under")


async def test_a_block_is_taken_only_for_a_name_it_fits(ceremony: Ceremony) -> None:
    name = "zpk-fits"
    key = await ceremony.active_key(name, usage="PIN_ENCRYPTION", exportability=EXPORTABLE)
    kbpk = reference("kbpk-sm4")
    export = pb.ExportKeyBlock(key=reference(name, key.version), under=kbpk)
    block = (await ceremony.done(export_block=export)).key_block
    for fields, expected in (
        ({"name": "imk-ac-sm4"}, "KEY_USAGE"),
        ({"under": reference("sealing")}, "KEY_USAGE"),
        ({"under": reference("no-such-kbpk")}, "KEY_UNKNOWN"),
        ({"under": reference("kbpk-aes")}, "MALFORMED_FIELD"),
        ({"key_block": block[:-1] + ("0" if block[-1] != "0" else "1")}, "MALFORMED_FIELD"),
        ({"card_key_option": pb.CARD_KEY_OPTION_B}, "MALFORMED_FIELD"),
    ):
        parts = {"name": f"{name}-other", "key_block": block, "under": kbpk}
        refusal = await ceremony.refused(import_block=pb.ImportKeyBlock(**parts | fields))
        assert refusal.reason == expected, fields
        assert block not in refusal.text
