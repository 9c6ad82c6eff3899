"""Keys, changed by two operators, and explanations of cryptograms."""

from onecard.v1 import keys_pb2

from clients.services.service import ServiceClient, unary_rpc

LIST_KEYS = unary_rpc("KeyService", "ListKeys", keys_pb2.ListKeysRequest, keys_pb2.ListKeysResponse)
PROPOSE_KEY_CHANGE = unary_rpc(
    "KeyService", "ProposeKeyChange", keys_pb2.ProposeKeyChangeRequest, keys_pb2.ProposeKeyChangeResponse
)
SUBMIT_KEY_COMPONENT = unary_rpc(
    "KeyService",
    "SubmitKeyComponent",
    keys_pb2.SubmitKeyComponentRequest,
    keys_pb2.SubmitKeyComponentResponse,
)
APPROVE_KEY_CHANGE = unary_rpc(
    "KeyService", "ApproveKeyChange", keys_pb2.ApproveKeyChangeRequest, keys_pb2.ApproveKeyChangeResponse
)
REJECT_KEY_CHANGE = unary_rpc(
    "KeyService", "RejectKeyChange", keys_pb2.RejectKeyChangeRequest, keys_pb2.RejectKeyChangeResponse
)
LIST_KEY_CHANGES = unary_rpc(
    "KeyService", "ListKeyChanges", keys_pb2.ListKeyChangesRequest, keys_pb2.ListKeyChangesResponse
)
LIST_KEY_AUDIT = unary_rpc(
    "KeyService", "ListKeyAudit", keys_pb2.ListKeyAuditRequest, keys_pb2.ListKeyAuditResponse
)
EXPLAIN_ARQC = unary_rpc(
    "KeyService", "ExplainArqc", keys_pb2.ExplainArqcRequest, keys_pb2.ExplainArqcResponse
)


class KeyClient(ServiceClient):
    """Every RPC of ``KeyService``."""

    async def list_keys(self, request: keys_pb2.ListKeysRequest) -> keys_pb2.ListKeysResponse:
        """Lists all keys."""
        return await self.channel.unary(LIST_KEYS, request)

    async def propose_key_change(
        self, request: keys_pb2.ProposeKeyChangeRequest
    ) -> keys_pb2.ProposeKeyChangeResponse:
        """Proposes a change of keys; another operator approves it."""
        return await self.channel.unary(PROPOSE_KEY_CHANGE, request)

    async def submit_key_component(
        self, request: keys_pb2.SubmitKeyComponentRequest
    ) -> keys_pb2.SubmitKeyComponentResponse:
        """Brings one component of a key."""
        return await self.channel.unary(SUBMIT_KEY_COMPONENT, request)

    async def approve_key_change(
        self, request: keys_pb2.ApproveKeyChangeRequest
    ) -> keys_pb2.ApproveKeyChangeResponse:
        """Approves a change of keys and carries it out."""
        return await self.channel.unary(APPROVE_KEY_CHANGE, request)

    async def reject_key_change(
        self, request: keys_pb2.RejectKeyChangeRequest
    ) -> keys_pb2.RejectKeyChangeResponse:
        """Rejects or withdraws a change of keys."""
        return await self.channel.unary(REJECT_KEY_CHANGE, request)

    async def list_key_changes(
        self, request: keys_pb2.ListKeyChangesRequest
    ) -> keys_pb2.ListKeyChangesResponse:
        """Lists changes of keys, the latest first."""
        return await self.channel.unary(LIST_KEY_CHANGES, request)

    async def list_key_audit(self, request: keys_pb2.ListKeyAuditRequest) -> keys_pb2.ListKeyAuditResponse:
        """Lists the audit of keys, the latest first."""
        return await self.channel.unary(LIST_KEY_AUDIT, request)

    async def explain_arqc(self, request: keys_pb2.ExplainArqcRequest) -> keys_pb2.ExplainArqcResponse:
        """Tells why a cryptogram was wrong."""
        return await self.channel.unary(EXPLAIN_ARQC, request)
