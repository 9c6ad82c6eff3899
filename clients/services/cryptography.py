"""Cryptography for the cores of banks, and PINs of cards."""

from collections.abc import AsyncIterable, AsyncIterator

from onecard.v1 import cryptography_pb2

from clients.frames import FRAMES_IN_FLIGHT_MAX, FramePipeline, StreamRpc
from clients.services.service import ServiceClient, unary_rpc

VERIFY_ARQC = unary_rpc(
    "CryptographyService",
    "VerifyArqc",
    cryptography_pb2.VerifyArqcRequest,
    cryptography_pb2.VerifyArqcResponse,
)
VERIFY_PIN = unary_rpc(
    "CryptographyService", "VerifyPin", cryptography_pb2.VerifyPinRequest, cryptography_pb2.VerifyPinResponse
)
CHANGE_PIN = unary_rpc(
    "CryptographyService", "ChangePin", cryptography_pb2.ChangePinRequest, cryptography_pb2.ChangePinResponse
)
UNBLOCK_PIN = unary_rpc(
    "CryptographyService",
    "UnblockPin",
    cryptography_pb2.UnblockPinRequest,
    cryptography_pb2.UnblockPinResponse,
)
ISSUE_PIN = unary_rpc(
    "CryptographyService", "IssuePin", cryptography_pb2.IssuePinRequest, cryptography_pb2.IssuePinResponse
)
TRANSLATE_PIN = unary_rpc(
    "CryptographyService",
    "TranslatePin",
    cryptography_pb2.TranslatePinRequest,
    cryptography_pb2.TranslatePinResponse,
)
GENERATE_MAC = unary_rpc(
    "CryptographyService",
    "GenerateMac",
    cryptography_pb2.GenerateMacRequest,
    cryptography_pb2.GenerateMacResponse,
)
VERIFY_MAC = unary_rpc(
    "CryptographyService", "VerifyMac", cryptography_pb2.VerifyMacRequest, cryptography_pb2.VerifyMacResponse
)
GENERATE_CARD_VERIFICATION = unary_rpc(
    "CryptographyService",
    "GenerateCardVerification",
    cryptography_pb2.GenerateCardVerificationRequest,
    cryptography_pb2.GenerateCardVerificationResponse,
)
VERIFY_CARD_VERIFICATION = unary_rpc(
    "CryptographyService",
    "VerifyCardVerification",
    cryptography_pb2.VerifyCardVerificationRequest,
    cryptography_pb2.VerifyCardVerificationResponse,
)
GENERATE_ISSUER_SCRIPT = unary_rpc(
    "CryptographyService",
    "GenerateIssuerScript",
    cryptography_pb2.GenerateIssuerScriptRequest,
    cryptography_pb2.GenerateIssuerScriptResponse,
)
CRYPTOGRAPHY_STREAM = StreamRpc(
    "/onecard.v1.CryptographyService/CryptographyStream",
    cryptography_pb2.CryptographyStreamRequest,
    cryptography_pb2.CryptographyStreamResponse,
)


class CryptographyClient(ServiceClient):
    """Every RPC of ``CryptographyService``."""

    async def verify_arqc(
        self, request: cryptography_pb2.VerifyArqcRequest
    ) -> cryptography_pb2.VerifyArqcResponse:
        """Checks a cryptogram under the caller's issuer master key and answers it."""
        return await self.channel.unary(VERIFY_ARQC, request)

    async def verify_pin(
        self, request: cryptography_pb2.VerifyPinRequest
    ) -> cryptography_pb2.VerifyPinResponse:
        """Checks a card's PIN; a wrong one is an answer and counts."""
        return await self.channel.unary(VERIFY_PIN, request)

    async def change_pin(
        self, request: cryptography_pb2.ChangePinRequest
    ) -> cryptography_pb2.ChangePinResponse:
        """Changes a card's PIN."""
        return await self.channel.unary(CHANGE_PIN, request)

    async def unblock_pin(
        self, request: cryptography_pb2.UnblockPinRequest
    ) -> cryptography_pb2.UnblockPinResponse:
        """Sets the counter of wrong PINs back."""
        return await self.channel.unary(UNBLOCK_PIN, request)

    async def issue_pin(self, request: cryptography_pb2.IssuePinRequest) -> cryptography_pb2.IssuePinResponse:
        """Gives a card a random PIN, told as an encrypted block."""
        return await self.channel.unary(ISSUE_PIN, request)

    async def translate_pin(
        self, request: cryptography_pb2.TranslatePinRequest
    ) -> cryptography_pb2.TranslatePinResponse:
        """Moves a PIN to another key and format."""
        return await self.channel.unary(TRANSLATE_PIN, request)

    async def generate_mac(
        self, request: cryptography_pb2.GenerateMacRequest
    ) -> cryptography_pb2.GenerateMacResponse:
        """Computes a message authentication code."""
        return await self.channel.unary(GENERATE_MAC, request)

    async def verify_mac(
        self, request: cryptography_pb2.VerifyMacRequest
    ) -> cryptography_pb2.VerifyMacResponse:
        """Checks a message authentication code."""
        return await self.channel.unary(VERIFY_MAC, request)

    async def generate_card_verification(
        self, request: cryptography_pb2.GenerateCardVerificationRequest
    ) -> cryptography_pb2.GenerateCardVerificationResponse:
        """Computes CVV, iCVV or CVV2."""
        return await self.channel.unary(GENERATE_CARD_VERIFICATION, request)

    async def verify_card_verification(
        self, request: cryptography_pb2.VerifyCardVerificationRequest
    ) -> cryptography_pb2.VerifyCardVerificationResponse:
        """Checks CVV, iCVV or CVV2."""
        return await self.channel.unary(VERIFY_CARD_VERIFICATION, request)

    async def generate_issuer_script(
        self, request: cryptography_pb2.GenerateIssuerScriptRequest
    ) -> cryptography_pb2.GenerateIssuerScriptResponse:
        """Makes a command that changes a chip."""
        return await self.channel.unary(GENERATE_ISSUER_SCRIPT, request)

    def cryptography_stream(
        self,
        frames: AsyncIterable[cryptography_pb2.CryptographyStreamRequest],
        *,
        in_flight_max: int = FRAMES_IN_FLIGHT_MAX,
    ) -> AsyncIterator[cryptography_pb2.CryptographyStreamResponse]:
        """Does frames of cryptographic operations; as ``authorize_stream``."""
        return FramePipeline(self.channel, CRYPTOGRAPHY_STREAM, in_flight_max=in_flight_max).run(frames)
