"""Authentication of chips."""

from onecard.v1 import card_authentication_pb2

from clients.services.service import ServiceClient, unary_rpc

CREATE_CHALLENGE = unary_rpc(
    "CardAuthenticationService",
    "CreateChallenge",
    card_authentication_pb2.CreateChallengeRequest,
    card_authentication_pb2.CreateChallengeResponse,
)
AUTHENTICATE_CARD = unary_rpc(
    "CardAuthenticationService",
    "AuthenticateCard",
    card_authentication_pb2.AuthenticateCardRequest,
    card_authentication_pb2.AuthenticateCardResponse,
)


class CardAuthenticationClient(ServiceClient):
    """Every RPC of ``CardAuthenticationService``."""

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
