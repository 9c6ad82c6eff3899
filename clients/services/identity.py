"""Verification of holders, and codes of the electronic card."""

from onecard.v1 import identity_pb2

from clients.services.service import ServiceClient, unary_rpc

VERIFY_IDENTITY = unary_rpc(
    "IdentityService",
    "VerifyIdentity",
    identity_pb2.VerifyIdentityRequest,
    identity_pb2.VerifyIdentityResponse,
)
ISSUE_CARD_CODE = unary_rpc(
    "IdentityService",
    "IssueCardCode",
    identity_pb2.IssueCardCodeRequest,
    identity_pb2.IssueCardCodeResponse,
)


class IdentityClient(ServiceClient):
    """Every RPC of ``IdentityService``."""

    async def verify_identity(
        self, request: identity_pb2.VerifyIdentityRequest
    ) -> identity_pb2.VerifyIdentityResponse:
        """Verifies a holder by chip, code, or name and number."""
        return await self.channel.unary(VERIFY_IDENTITY, request)

    async def issue_card_code(
        self, request: identity_pb2.IssueCardCodeRequest
    ) -> identity_pb2.IssueCardCodeResponse:
        """Issues a code of the electronic card."""
        return await self.channel.unary(ISSUE_CARD_CODE, request)
