"""Operators of the tests, and their calls to the RuleService."""

import asyncio
import json
from typing import Any

from core_under_test import CALL_S, GRANTS_IN_FORCE_S, Core, new_id
from onecard.v1 import rules_pb2 as pb
from onecard.v1 import rules_pb2_grpc

from server.database.statements import load

WHY = "test of rules"
RULE_CLASSES = ("rule_view", "rule_editor")
ACQUIRER = "rule-bank-01"


def proposed(content: Any, *subjects: str) -> pb.ProposedRule:
    """One content, as JSON unless it is a text already."""
    text = content if isinstance(content, str) else json.dumps(content)
    return pb.ProposedRule(content=text, subjects=subjects)


def proposal(kind: str, *rules: pb.ProposedRule, **fields: Any) -> pb.ProposeRuleChangeRequest:
    parts = {
        "request_id": new_id(),
        "kind": pb.RuleKind.Value(f"RULE_KIND_{kind.upper()}"),
        "justification": WHY,
        "rules": rules,
    }
    return pb.ProposeRuleChangeRequest(**parts | fields)


class RuleOperator:
    """One participant's calls, each on a connection of its own."""

    def __init__(self, core: Core, participant_id: str) -> None:
        self.participant_id = participant_id
        self.stub = rules_pb2_grpc.RuleServiceStub(core.caller(participant_id).channel)

    async def send(self, request: pb.ProposeRuleChangeRequest) -> pb.RuleChange:
        return (await self.stub.ProposeRuleChange(request, timeout=CALL_S)).change

    async def propose(self, kind: str, content: Any, *subjects: str, **fields: Any) -> pb.RuleChange:
        return await self.send(proposal(kind, proposed(content, *subjects), **fields))

    async def extend(self, change_id: str, *rules: pb.ProposedRule, request_id: str = "") -> int:
        request = pb.ExtendRuleChangeRequest(
            request_id=request_id or new_id(), change_id=change_id, rules=rules
        )
        return (await self.stub.ExtendRuleChange(request, timeout=CALL_S)).rules_given

    async def approve(self, change_id: str, *, request_id: str = "") -> pb.RuleChange:
        request = pb.ApproveRuleChangeRequest(request_id=request_id or new_id(), change_id=change_id)
        return (await self.stub.ApproveRuleChange(request, timeout=CALL_S)).change

    async def reject(self, change_id: str, *, request_id: str = "") -> pb.RuleChange:
        request = pb.RejectRuleChangeRequest(request_id=request_id or new_id(), change_id=change_id)
        return (await self.stub.RejectRuleChange(request, timeout=CALL_S)).change

    async def get(self, change_id: str, **page: Any) -> pb.GetRuleChangeResponse:
        request = pb.GetRuleChangeRequest(change_id=change_id, **page)
        return await self.stub.GetRuleChange(request, timeout=CALL_S)

    async def rules(self, kind: str, prefix: str = "", **page: Any) -> pb.ListRulesResponse:
        number = pb.RuleKind.Value(f"RULE_KIND_{kind.upper()}")
        request = pb.ListRulesRequest(kind=number, subject_prefix=prefix, **page)
        return await self.stub.ListRules(request, timeout=CALL_S)

    async def in_force(self, kind: str, subject: str) -> Any:
        """The content of a rule; None when there is none."""
        rules = [rule for rule in (await self.rules(kind, subject)).rules if rule.subject == subject]
        return json.loads(rules[0].content) if rules else None

    async def changes(self, **fields: Any) -> pb.ListRuleChangesResponse:
        return await self.stub.ListRuleChanges(pb.ListRuleChangesRequest(**fields), timeout=CALL_S)


class RuleOffice:
    """Three operators of a core."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.one, self.two, self.three = (RuleOperator(core, f"rule-operator-0{n}") for n in (1, 2, 3))

    async def done(self, kind: str, content: Any, *subjects: str) -> pb.RuleChange:
        """Proposes as one operator and approves as another."""
        change = await self.one.propose(kind, content, *subjects)
        return await self.two.approve(change.change_id)


async def add_rule_participants(core: Core) -> None:
    """Operators, one that lacks each grant, and a bank that has them all."""
    statements = load("server.edge")
    kinds = {f"rule-operator-0{n}": ("operator", RULE_CLASSES) for n in (1, 2, 3)}
    kinds["not-rule-view"] = "operator", ("rule_editor",)
    kinds["not-rule-editor"] = "operator", ("rule_view",)
    kinds[ACQUIRER] = "bank", RULE_CLASSES
    for participant_id, (kind, classes) in kinds.items():
        await core.database.fetch(statements["add_participant"], participant_id, participant_id, kind)
        await core.database.fetch(statements["grant_participant"], participant_id, "rpc_class", list(classes))
    await asyncio.sleep(GRANTS_IN_FORCE_S)
