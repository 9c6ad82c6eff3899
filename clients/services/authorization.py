"""Money operations, their look-up, and card tokens."""

from collections.abc import AsyncIterable, AsyncIterator

from onecard.v1 import authorization_pb2

from clients.frames import FRAMES_IN_FLIGHT_MAX, FramePipeline, StreamRpc
from clients.services.service import ServiceClient, unary_rpc

AUTHORIZE = unary_rpc(
    "AuthorizationService",
    "Authorize",
    authorization_pb2.AuthorizeRequest,
    authorization_pb2.AuthorizeResponse,
)
LOOK_UP_OPERATION = unary_rpc(
    "AuthorizationService",
    "LookUpOperation",
    authorization_pb2.LookUpOperationRequest,
    authorization_pb2.LookUpOperationResponse,
)
REGISTER_CARD_TOKEN = unary_rpc(
    "AuthorizationService",
    "RegisterCardToken",
    authorization_pb2.RegisterCardTokenRequest,
    authorization_pb2.RegisterCardTokenResponse,
)
REVOKE_CARD_TOKEN = unary_rpc(
    "AuthorizationService",
    "RevokeCardToken",
    authorization_pb2.RevokeCardTokenRequest,
    authorization_pb2.RevokeCardTokenResponse,
)
AUTHORIZE_STREAM = StreamRpc(
    "/onecard.v1.AuthorizationService/AuthorizeStream",
    authorization_pb2.AuthorizeStreamRequest,
    authorization_pb2.AuthorizeStreamResponse,
)


class AuthorizationClient(ServiceClient):
    """Every RPC of ``AuthorizationService``."""

    async def authorize(
        self, request: authorization_pb2.AuthorizeRequest
    ) -> authorization_pb2.AuthorizeResponse:
        """Decides one money operation; a decline is an answer."""
        return await self.channel.unary(AUTHORIZE, request)

    async def look_up_operation(
        self, request: authorization_pb2.LookUpOperationRequest
    ) -> authorization_pb2.LookUpOperationResponse:
        """The stored outcome of an operation of the caller's own, and what became of it."""
        return await self.channel.unary(LOOK_UP_OPERATION, request)

    async def register_card_token(
        self, request: authorization_pb2.RegisterCardTokenRequest
    ) -> authorization_pb2.RegisterCardTokenResponse:
        """Lets a token of the caller's own name a card."""
        return await self.channel.unary(REGISTER_CARD_TOKEN, request)

    async def revoke_card_token(
        self, request: authorization_pb2.RevokeCardTokenRequest
    ) -> authorization_pb2.RevokeCardTokenResponse:
        """Ends a token for the next operation of every worker."""
        return await self.channel.unary(REVOKE_CARD_TOKEN, request)

    def authorize_stream(
        self,
        frames: AsyncIterable[authorization_pb2.AuthorizeStreamRequest],
        *,
        in_flight_max: int = FRAMES_IN_FLIGHT_MAX,
    ) -> AsyncIterator[authorization_pb2.AuthorizeStreamResponse]:
        """Decides frames of money operations, several on their way at once; answers keep the order of the frames.

        A stream that breaks is opened anew, and the frames without an answer are sent again as they were.
        """
        return FramePipeline(self.channel, AUTHORIZE_STREAM, in_flight_max=in_flight_max).run(frames)
