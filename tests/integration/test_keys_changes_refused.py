"""Changes of keys that are malformed, impossible, unknown or not the caller's to make are refused."""

from typing import Any

import grpc
from core_under_test import CALL_S, Core, changed, new_id, refusal_of
from key_operators import Ceremony, KeyOperator, new_key, proposal, reference
from onecard.v1 import keys_pb2 as pb

NOT_YET = "00000000-0000-0000-0000-00000000dead"


async def test_what_cannot_be_carried_out_is_not_proposed(ceremony: Ceremony) -> None:
    name = "imk-states"
    await ceremony.active_key(name)
    await ceremony.done(generate=new_key(name))
    await ceremony.done(destroy=pb.DestroyKey(key=reference(name, 2)))
    one, two = reference(name, 1), reference(name, 2)
    state, usage = (
        (grpc.StatusCode.FAILED_PRECONDITION, "KEY_STATE"),
        (
            grpc.StatusCode.FAILED_PRECONDITION,
            "KEY_USAGE",
        ),
    )
    unknown = (grpc.StatusCode.NOT_FOUND, "KEY_UNKNOWN")
    kbpk = reference("kbpk-sm4")
    cases: list[tuple[dict[str, Any], tuple[grpc.StatusCode, str]]] = [
        ({"activate": pb.ActivateKey(key=one)}, state),
        ({"activate": pb.ActivateKey(key=two)}, state),
        ({"retire": pb.RetireKey(key=two)}, state),
        ({"destroy": pb.DestroyKey(key=one)}, state),
        ({"destroy": pb.DestroyKey(key=two)}, state),
        ({"cancel_destruction": pb.CancelKeyDestruction(key=one)}, state),
        ({"rotate": pb.RotateKey(name="blind-index")}, state),
        ({"retire": pb.RetireKey(key=reference("blind-index", 1))}, state),
        ({"retire": pb.RetireKey(key=reference("sealing", 1))}, state),
        ({"retire": pb.RetireKey(key=reference("challenge", 1))}, state),
        ({"retire": pb.RetireKey(key=reference("card-code", 1))}, state),
        ({"retire": pb.RetireKey(key=reference("pvk", 1))}, state),
        ({"retire": pb.RetireKey(key=reference("imk-ac-tdes", 1))}, state),
        ({"retire": pb.RetireKey(key=reference("ss-auth-aes", 1))}, state),
        ({"generate": new_key("blind-index", "BLIND_INDEX", "HMAC_SM3")}, state),
        ({"generate": new_key(name, "PIN_ENCRYPTION")}, usage),
        ({"generate": new_key(name, "IMK_AC", "AES")}, usage),
        ({"export_block": pb.ExportKeyBlock(key=one, under=kbpk)}, usage),
        ({"export_block": pb.ExportKeyBlock(key=one, under=reference("sealing"))}, usage),
        ({"activate": pb.ActivateKey(key=reference(name, 9))}, unknown),
        ({"rotate": pb.RotateKey(name="no-such-key")}, unknown),
        ({"export_block": pb.ExportKeyBlock(key=one, under=reference("no-kbpk"))}, unknown),
    ]
    for change, expected in cases:
        refusal = await ceremony.refused(**change)
        assert (refusal.code, refusal.reason) == expected, change
    refused = [detail for step, _, detail in await ceremony.one.steps(name) if step == "REFUSED"]
    assert len(refused) == 10
    assert "ACTIVATE KEY_STATE" in refused


async def test_what_became_impossible_is_refused_at_approval(ceremony: Ceremony) -> None:
    name = "imk-moved-on"
    await ceremony.active_key(name)
    await ceremony.done(generate=new_key(name))
    to_activate = await ceremony.one.propose(activate=pb.ActivateKey(key=reference(name, 2)))
    await ceremony.done(destroy=pb.DestroyKey(key=reference(name, 2)))
    refusal = await refusal_of(ceremony.two.approve(to_activate.change_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_STATE")
    assert (await ceremony.one.steps(name))[-1] == ("REFUSED", "custodian-02", "ACTIVATE KEY_STATE")
    change = await ceremony.one.change(to_activate.change_id)
    assert change.state == pb.KEY_CHANGE_STATE_PROPOSED


async def test_an_unknown_change_is_not_found(ceremony: Ceremony) -> None:
    for call in (
        ceremony.one.approve(NOT_YET),
        ceremony.one.reject(NOT_YET),
        ceremony.one.submit(NOT_YET, bytes(16)),
    ):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_CHANGE_UNKNOWN")


async def test_malformed_fields_are_refused_by_name(ceremony: Ceremony) -> None:
    good = new_key("imk-malformed")
    block = pb.ImportKeyBlock(name="imk-malformed", key_block="B" * 64, under=reference("kbpk-sm4"))
    parts = pb.ImportKeyComponents(key=good, components=2, kcv="ABCDEF")
    key = reference("imk-ac-sm4", 1)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"request_id": "x", "generate": good}, "request_id"),
        ({"justification": "", "generate": good}, "justification"),
        ({"justification": "x" * 201, "generate": good}, "justification"),
        ({"justification": "a\nb", "generate": good}, "justification"),
        ({}, "change"),
        ({"generate": changed(good, name="")}, "generate.name"),
        ({"generate": changed(good, name="Ä")}, "generate.name"),
        ({"generate": changed(good, name="a" * 49)}, "generate.name"),
        ({"generate": changed(good, usage="UDK_AC")}, "generate.usage"),
        ({"generate": changed(good, usage="SESSION_SMI")}, "generate.usage"),
        ({"generate": changed(good, usage="STORAGE")}, "generate.usage"),
        ({"generate": changed(good, usage="imk_ac")}, "generate.usage"),
        ({"generate": changed(good, cipher=0)}, "generate.cipher"),
        ({"generate": changed(good, cipher=9)}, "generate.cipher"),
        ({"generate": changed(good, cipher=pb.KEY_CIPHER_HMAC_SM3)}, "generate.cipher"),
        ({"generate": new_key("cvk-malformed", "CARD_VERIFICATION", "SM4")}, "generate.cipher"),
        ({"generate": changed(good, key_bytes=24)}, "generate.key_bytes"),
        ({"generate": changed(good, exportability=7)}, "generate.exportability"),
        ({"generate": changed(good, card_key_option=7)}, "generate.card_key_option"),
        (
            {"generate": new_key("zpk-x", "PIN_ENCRYPTION", card_key_option=pb.CARD_KEY_OPTION_A)},
            "generate.card_key_option",
        ),
        ({"import_components": changed(parts, components=1)}, "import_components.components"),
        ({"import_components": changed(parts, components=4)}, "import_components.components"),
        ({"import_components": changed(parts, kcv="ABCDE")}, "import_components.kcv"),
        ({"import_components": changed(parts, key=None)}, "import_components.key.name"),
        ({"import_block": changed(block, name="-x")}, "import_block.name"),
        ({"import_block": changed(block, key_block="B" * 15)}, "import_block.key_block"),
        ({"import_block": changed(block, key_block="B" * 4097)}, "import_block.key_block"),
        ({"import_block": block}, "import_block.key_block"),
        ({"import_block": changed(block, under=None)}, "import_block.under.name"),
        ({"import_block": changed(block, card_key_option=7)}, "import_block.card_key_option"),
        ({"export_block": pb.ExportKeyBlock(key=reference("imk-ac-sm4"))}, "export_block.key.version"),
        ({"export_block": pb.ExportKeyBlock(key=key)}, "export_block.under.name"),
        ({"export_block": pb.ExportKeyBlock(key=key, under=key)}, "export_block.under"),
        ({"activate": pb.ActivateKey(key=reference("imk-ac-sm4"))}, "activate.key.version"),
        ({"activate": pb.ActivateKey(key=reference("imk-ac-sm4", 256))}, "activate.key.version"),
        ({"rotate": pb.RotateKey(name="")}, "rotate.name"),
        ({"retire": pb.RetireKey()}, "retire.key.name"),
        ({"destroy": pb.DestroyKey()}, "destroy.key.name"),
        ({"cancel_destruction": pb.CancelKeyDestruction()}, "cancel_destruction.key.name"),
    ]
    for change, field in cases:
        refusal = await ceremony.refused(**change)
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field), change


async def test_malformed_fields_of_the_other_calls_are_refused_by_name(ceremony: Ceremony) -> None:
    stub = ceremony.one.stub
    cases: list[tuple[Any, Any, str]] = [
        (stub.ApproveKeyChange, pb.ApproveKeyChangeRequest(change_id="x"), "change_id"),
        (stub.RejectKeyChange, pb.RejectKeyChangeRequest(), "change_id"),
        (stub.SubmitKeyComponent, pb.SubmitKeyComponentRequest(change_id=NOT_YET), "request_id"),
        (stub.SubmitKeyComponent, pb.SubmitKeyComponentRequest(request_id=new_id()), "change_id"),
        (
            stub.SubmitKeyComponent,
            pb.SubmitKeyComponentRequest(request_id=new_id(), change_id=NOT_YET),
            "component",
        ),
        (stub.ListKeyChanges, pb.ListKeyChangesRequest(page_size=1001), "page_size"),
        (stub.ListKeyChanges, pb.ListKeyChangesRequest(page_token="x"), "page_token"),
        (stub.ListKeyAudit, pb.ListKeyAuditRequest(page_size=1001), "page_size"),
        (stub.ListKeyAudit, pb.ListKeyAuditRequest(page_token="-1"), "page_token"),
        (stub.ListKeyAudit, pb.ListKeyAuditRequest(key_name="%"), "key_name"),
    ]
    for rpc, request, field in cases:
        refusal = await refusal_of(rpc(request, timeout=CALL_S))
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field), request


async def test_only_operators_with_the_grant_are_admitted(ceremony: Ceremony, key_core: Core) -> None:
    classes = {
        "ListKeys": ("key_view", pb.ListKeysRequest()),
        "ListKeyChanges": ("key_view", pb.ListKeyChangesRequest()),
        "ListKeyAudit": ("key_view", pb.ListKeyAuditRequest()),
        "ProposeKeyChange": ("key_custodian", proposal(generate=new_key("imk-not-granted"))),
        "SubmitKeyComponent": ("key_custodian", pb.SubmitKeyComponentRequest()),
        "ApproveKeyChange": ("key_custodian", pb.ApproveKeyChangeRequest()),
        "RejectKeyChange": ("key_custodian", pb.RejectKeyChangeRequest()),
        "ExplainArqc": ("key_diagnosis", pb.ExplainArqcRequest()),
    }
    assert set(classes) == {method.name for method in pb.DESCRIPTOR.services_by_name["KeyService"].methods}
    bank = KeyOperator(key_core, "key-bank-01")
    without = {
        rpc_class: KeyOperator(key_core, f"not-{rpc_class.replace('_', '-')}")
        for rpc_class, _ in classes.values()
    }
    for rpc, (rpc_class, request) in classes.items():
        refusal = await refusal_of(getattr(bank.stub, rpc)(request, timeout=CALL_S))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "OPERATOR_ONLY"), rpc
        refusal = await refusal_of(getattr(without[rpc_class].stub, rpc)(request, timeout=CALL_S))
        assert refusal.reason == "RPC_CLASS_NOT_GRANTED", rpc
