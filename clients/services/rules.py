"""Rules, changed by two operators."""

from onecard.v1 import rules_pb2

from clients.services.service import ServiceClient, unary_rpc

LIST_RULES = unary_rpc("RuleService", "ListRules", rules_pb2.ListRulesRequest, rules_pb2.ListRulesResponse)
PROPOSE_RULE_CHANGE = unary_rpc(
    "RuleService",
    "ProposeRuleChange",
    rules_pb2.ProposeRuleChangeRequest,
    rules_pb2.ProposeRuleChangeResponse,
)
EXTEND_RULE_CHANGE = unary_rpc(
    "RuleService", "ExtendRuleChange", rules_pb2.ExtendRuleChangeRequest, rules_pb2.ExtendRuleChangeResponse
)
APPROVE_RULE_CHANGE = unary_rpc(
    "RuleService",
    "ApproveRuleChange",
    rules_pb2.ApproveRuleChangeRequest,
    rules_pb2.ApproveRuleChangeResponse,
)
REJECT_RULE_CHANGE = unary_rpc(
    "RuleService", "RejectRuleChange", rules_pb2.RejectRuleChangeRequest, rules_pb2.RejectRuleChangeResponse
)
GET_RULE_CHANGE = unary_rpc(
    "RuleService", "GetRuleChange", rules_pb2.GetRuleChangeRequest, rules_pb2.GetRuleChangeResponse
)
LIST_RULE_CHANGES = unary_rpc(
    "RuleService", "ListRuleChanges", rules_pb2.ListRuleChangesRequest, rules_pb2.ListRuleChangesResponse
)


class RuleClient(ServiceClient):
    """Every RPC of ``RuleService``."""

    async def list_rules(self, request: rules_pb2.ListRulesRequest) -> rules_pb2.ListRulesResponse:
        """Lists the rules in force of a kind."""
        return await self.channel.unary(LIST_RULES, request)

    async def propose_rule_change(
        self, request: rules_pb2.ProposeRuleChangeRequest
    ) -> rules_pb2.ProposeRuleChangeResponse:
        """Proposes rules of one kind; another operator approves them."""
        return await self.channel.unary(PROPOSE_RULE_CHANGE, request)

    async def extend_rule_change(
        self, request: rules_pb2.ExtendRuleChangeRequest
    ) -> rules_pb2.ExtendRuleChangeResponse:
        """Adds rules to one's own proposal."""
        return await self.channel.unary(EXTEND_RULE_CHANGE, request)

    async def approve_rule_change(
        self, request: rules_pb2.ApproveRuleChangeRequest
    ) -> rules_pb2.ApproveRuleChangeResponse:
        """Puts a change of rules in force."""
        return await self.channel.unary(APPROVE_RULE_CHANGE, request)

    async def reject_rule_change(
        self, request: rules_pb2.RejectRuleChangeRequest
    ) -> rules_pb2.RejectRuleChangeResponse:
        """Rejects or withdraws a change of rules."""
        return await self.channel.unary(REJECT_RULE_CHANGE, request)

    async def get_rule_change(
        self, request: rules_pb2.GetRuleChangeRequest
    ) -> rules_pb2.GetRuleChangeResponse:
        """Tells a change and its rules, beside those before it."""
        return await self.channel.unary(GET_RULE_CHANGE, request)

    async def list_rule_changes(
        self, request: rules_pb2.ListRuleChangesRequest
    ) -> rules_pb2.ListRuleChangesResponse:
        """Lists changes of rules, the latest first."""
        return await self.channel.unary(LIST_RULE_CHANGES, request)
