"""One typed method for each RPC of the core; a test compares them with the protos by reflection.

Requests go out as the caller built them. What a bank or an agency makes of them is in their own modules.
"""

from collections.abc import AsyncIterable, AsyncIterator
from typing import TypeVar

from google.protobuf.message import Message
from onecard.v1 import authorization_pb2, card_authentication_pb2, cards_pb2, identity_pb2

from clients.channel import OneCardChannel, UnaryRpc
from clients.frames import FRAMES_IN_FLIGHT_MAX, FramePipeline

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


def _rpc(
    service: str, method: str, request: type[Request], response: type[Response]
) -> UnaryRpc[Request, Response]:
    return UnaryRpc(f"/onecard.v1.{service}/{method}", request, response)


AUTHORIZE = _rpc(
    "AuthorizationService",
    "Authorize",
    authorization_pb2.AuthorizeRequest,
    authorization_pb2.AuthorizeResponse,
)
CREATE_CHALLENGE = _rpc(
    "CardAuthenticationService",
    "CreateChallenge",
    card_authentication_pb2.CreateChallengeRequest,
    card_authentication_pb2.CreateChallengeResponse,
)
AUTHENTICATE_CARD = _rpc(
    "CardAuthenticationService",
    "AuthenticateCard",
    card_authentication_pb2.AuthenticateCardRequest,
    card_authentication_pb2.AuthenticateCardResponse,
)
VERIFY_IDENTITY = _rpc(
    "IdentityService",
    "VerifyIdentity",
    identity_pb2.VerifyIdentityRequest,
    identity_pb2.VerifyIdentityResponse,
)
ISSUE_CARD_CODE = _rpc(
    "IdentityService",
    "IssueCardCode",
    identity_pb2.IssueCardCodeRequest,
    identity_pb2.IssueCardCodeResponse,
)
ISSUE_CARD = _rpc("CardService", "IssueCard", cards_pb2.IssueCardRequest, cards_pb2.IssueCardResponse)
GET_CARD_STATUS = _rpc(
    "CardService", "GetCardStatus", cards_pb2.GetCardStatusRequest, cards_pb2.GetCardStatusResponse
)
REPORT_LOSS = _rpc("CardService", "ReportLoss", cards_pb2.ReportLossRequest, cards_pb2.ReportLossResponse)
LIFT_LOSS = _rpc("CardService", "LiftLoss", cards_pb2.LiftLossRequest, cards_pb2.LiftLossResponse)


class OneCardClient:
    """Every RPC of the core over one channel. Each method raises ``OneCardCallError`` when there is no answer."""

    def __init__(self, channel: OneCardChannel) -> None:
        self.channel = channel

    async def authorize(
        self, request: authorization_pb2.AuthorizeRequest
    ) -> authorization_pb2.AuthorizeResponse:
        """Decides one money operation; a decline is an answer."""
        return await self.channel.unary(AUTHORIZE, request)

    def authorize_stream(
        self,
        frames: AsyncIterable[authorization_pb2.AuthorizeStreamRequest],
        *,
        in_flight_max: int = FRAMES_IN_FLIGHT_MAX,
    ) -> AsyncIterator[authorization_pb2.AuthorizeStreamResponse]:
        """Decides frames of money operations, several on their way at once; answers keep the order of the frames.

        A stream that breaks is opened anew, and the frames without an answer are sent again as they were.
        """
        return FramePipeline(self.channel, in_flight_max=in_flight_max).run(frames)

    async def create_challenge(
        self, request: card_authentication_pb2.CreateChallengeRequest
    ) -> card_authentication_pb2.CreateChallengeResponse:
        """Makes a challenge for INTERNAL AUTHENTICATE."""
        return await self.channel.unary(CREATE_CHALLENGE, request)

    async def authenticate_card(
        self, request: card_authentication_pb2.AuthenticateCardRequest
    ) -> card_authentication_pb2.AuthenticateCardResponse:
        """Checks a chip's answer or cryptogram."""
        return await self.channel.unary(AUTHENTICATE_CARD, request)

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

    async def issue_card(self, request: cards_pb2.IssueCardRequest) -> cards_pb2.IssueCardResponse:
        """Issues a card."""
        return await self.channel.unary(ISSUE_CARD, request)

    async def get_card_status(
        self, request: cards_pb2.GetCardStatusRequest
    ) -> cards_pb2.GetCardStatusResponse:
        """Tells a card's status."""
        return await self.channel.unary(GET_CARD_STATUS, request)

    async def report_loss(self, request: cards_pb2.ReportLossRequest) -> cards_pb2.ReportLossResponse:
        """Reports a loss; in force for the next operation."""
        return await self.channel.unary(REPORT_LOSS, request)

    async def lift_loss(self, request: cards_pb2.LiftLossRequest) -> cards_pb2.LiftLossResponse:
        """Lifts a loss report."""
        return await self.channel.unary(LIFT_LOSS, request)
