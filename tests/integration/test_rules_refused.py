"""What is malformed, unknown or not the caller's to change is refused, and named by its field."""

from typing import Any

import grpc
import pytest
from core_under_test import CALL_S, Core, changed, new_id, refusal_of
from onecard.v1 import rules_pb2 as pb
from rule_operators import ACQUIRER, RuleOffice, RuleOperator, proposal, proposed

SUBJECT = f"{ACQUIRER}/REFUSED1"
NOT_YET = "00000000-0000-0000-0000-00000000dead"


def good(**fields: Any) -> pb.ProposeRuleChangeRequest:
    return changed(proposal("terminal", proposed({}, SUBJECT)), **fields)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (good(request_id="x"), "request_id"),
        (good(request_id=""), "request_id"),
        (good(kind=0), "kind"),
        (good(kind=99), "kind"),
        (good(justification=""), "justification"),
        (good(justification=" "), "justification"),
        (good(justification="x" * 201), "justification"),
        (good(justification="a\nb"), "justification"),
        (good(rule_count=200_001), "rule_count"),
        (changed(good(), rules=None), "rules"),
        (changed(good(), rules=[proposed({}, SUBJECT, f"{SUBJECT}x")], rule_count=1), "rule_count"),
        (changed(good(), rules=[proposed("[]", SUBJECT)]), "rules[0].content"),
        (changed(good(), rules=[proposed('{"is_blocked": 1}', SUBJECT)]), "rules[0].content"),
        (changed(good(), rules=[proposed('{"blocked": true}', SUBJECT)]), "rules[0].content"),
        (changed(good(), rules=[proposed({}, "T1")]), "rules[0].subjects[0]"),
        (changed(good(), rules=[proposed({}, SUBJECT, SUBJECT)]), "rules[0].subjects[1]"),
        (proposal("limit", proposed({}, "purchase")), "rules[0].subjects[0]"),
        (proposal("limit", proposed({"day_count_max": 65_536}, "tap")), "rules[0].content"),
        (proposal("wallet", proposed({"name": "w"}, "100")), "rules[0].subjects[0]"),
        (proposal("wallet", proposed({"name": "\x00"}, "1")), "rules[0].content"),
    ],
)
async def test_malformed_proposal_is_refused_by_field(
    office: RuleOffice, request_: pb.ProposeRuleChangeRequest, field: str
) -> None:
    refusal = await refusal_of(office.one.send(request_))
    assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert SUBJECT not in refusal.text
    assert not (await office.one.rules("terminal", SUBJECT)).rules


async def test_malformed_fields_of_the_others_are_refused(office: RuleOffice) -> None:
    stub, ids = office.one.stub, {"request_id": new_id(), "change_id": NOT_YET}
    limit = pb.RULE_KIND_LIMIT
    cases = [
        (stub.ExtendRuleChange, pb.ExtendRuleChangeRequest(change_id=NOT_YET), "request_id"),
        (stub.ExtendRuleChange, pb.ExtendRuleChangeRequest(request_id=new_id()), "change_id"),
        (stub.ApproveRuleChange, pb.ApproveRuleChangeRequest(change_id=NOT_YET), "request_id"),
        (stub.ApproveRuleChange, pb.ApproveRuleChangeRequest(**ids | {"change_id": "x"}), "change_id"),
        (stub.RejectRuleChange, pb.RejectRuleChangeRequest(change_id=NOT_YET), "request_id"),
        (stub.RejectRuleChange, pb.RejectRuleChangeRequest(**ids | {"change_id": "x"}), "change_id"),
        (stub.GetRuleChange, pb.GetRuleChangeRequest(), "change_id"),
        (stub.GetRuleChange, pb.GetRuleChangeRequest(change_id=NOT_YET, page_size=1_001), "page_size"),
        (stub.GetRuleChange, pb.GetRuleChangeRequest(change_id=NOT_YET, page_token="x" * 50), "page_token"),
        (stub.ListRules, pb.ListRulesRequest(), "kind"),
        (stub.ListRules, pb.ListRulesRequest(kind=limit, subject_prefix="é"), "subject_prefix"),
        (stub.ListRules, pb.ListRulesRequest(kind=limit, subject_prefix="x" * 50), "subject_prefix"),
        (stub.ListRules, pb.ListRulesRequest(kind=limit, page_size=1_001), "page_size"),
        (stub.ListRules, pb.ListRulesRequest(kind=limit, page_token="a b"), "page_token"),
        (stub.ListRuleChanges, pb.ListRuleChangesRequest(kind=99), "kind"),
        (stub.ListRuleChanges, pb.ListRuleChangesRequest(subject="tap"), "kind"),
        (stub.ListRuleChanges, pb.ListRuleChangesRequest(kind=limit, subject="x"), "subject"),
        (stub.ListRuleChanges, pb.ListRuleChangesRequest(page_size=1_001), "page_size"),
        (stub.ListRuleChanges, pb.ListRuleChangesRequest(page_token="-1"), "page_token"),
        (stub.ListRuleChanges, pb.ListRuleChangesRequest(page_token="9" * 19), "page_token"),
    ]
    for rpc, request, field in cases:
        refusal = await refusal_of(rpc(request, timeout=CALL_S))
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, field), request


async def test_an_unknown_change_is_not_found(office: RuleOffice) -> None:
    for call in (
        office.one.extend(NOT_YET, proposed({}, SUBJECT)),
        office.one.approve(NOT_YET),
        office.one.reject(NOT_YET),
        office.one.get(NOT_YET),
    ):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RULE_CHANGE_UNKNOWN")


@pytest.mark.parametrize("kind", ["merchant", "terminal", "acceptance"])
async def test_a_rule_for_a_participant_that_is_none_is_refused(office: RuleOffice, kind: str) -> None:
    known, unknown = (ACQUIRER, "no-such-bank")
    if kind != "acceptance":
        known, unknown = f"{known}/1", f"{unknown}/1"
    refusal = await refusal_of(office.one.propose(kind, {}, known, unknown))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "PARTICIPANT_UNKNOWN")
    assert refusal.field == "rules[0].subjects[1]"
    assert "no-such-bank" not in refusal.text
    change = await office.one.propose(kind, {}, known, rule_count=2)
    refusal = await refusal_of(office.one.extend(change.change_id, proposed({}, unknown)))
    assert (refusal.reason, refusal.field) == ("PARTICIPANT_UNKNOWN", "rules[0].subjects[0]")
    await office.one.reject(change.change_id)


async def test_only_operators_with_the_grant_are_admitted(office: RuleOffice, rule_core: Core) -> None:
    ids = {"request_id": new_id(), "change_id": NOT_YET}
    classes = {
        "ListRules": ("rule_view", pb.ListRulesRequest(kind=pb.RULE_KIND_LIMIT)),
        "GetRuleChange": ("rule_view", pb.GetRuleChangeRequest(change_id=NOT_YET)),
        "ListRuleChanges": ("rule_view", pb.ListRuleChangesRequest()),
        "ProposeRuleChange": ("rule_editor", good()),
        "ExtendRuleChange": ("rule_editor", pb.ExtendRuleChangeRequest(**ids)),
        "ApproveRuleChange": ("rule_editor", pb.ApproveRuleChangeRequest(**ids)),
        "RejectRuleChange": ("rule_editor", pb.RejectRuleChangeRequest(**ids)),
    }
    assert set(classes) == {method.name for method in pb.DESCRIPTOR.services_by_name["RuleService"].methods}
    bank = RuleOperator(rule_core, ACQUIRER)
    without = {
        "rule_view": RuleOperator(rule_core, "not-rule-view"),
        "rule_editor": RuleOperator(rule_core, "not-rule-editor"),
    }
    for rpc, (rpc_class, request) in classes.items():
        refusal = await refusal_of(getattr(bank.stub, rpc)(request, timeout=CALL_S))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "OPERATOR_ONLY"), rpc
        refusal = await refusal_of(getattr(without[rpc_class].stub, rpc)(request, timeout=CALL_S))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "RPC_CLASS_NOT_GRANTED",
        ), rpc
