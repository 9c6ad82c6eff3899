"""One typed method for each RPC of the core; a test compares them with the protos by reflection.

Requests go out as the caller built them. What a bank or an agency makes of them is in their own modules.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import TypeVar

from google.protobuf.message import Message
from onecard.v1 import (
    authorization_pb2,
    card_authentication_pb2,
    cards_pb2,
    cryptography_pb2,
    identity_pb2,
    keys_pb2,
    rules_pb2,
    settlement_pb2,
)

from clients.channel import OneCardChannel, UnaryRpc
from clients.events import ServerStreamRpc, answers, subscribe
from clients.frames import FRAMES_IN_FLIGHT_MAX, FramePipeline, StreamRpc

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
LOOK_UP_OPERATION = _rpc(
    "AuthorizationService",
    "LookUpOperation",
    authorization_pb2.LookUpOperationRequest,
    authorization_pb2.LookUpOperationResponse,
)
REGISTER_CARD_TOKEN = _rpc(
    "AuthorizationService",
    "RegisterCardToken",
    authorization_pb2.RegisterCardTokenRequest,
    authorization_pb2.RegisterCardTokenResponse,
)
REVOKE_CARD_TOKEN = _rpc(
    "AuthorizationService",
    "RevokeCardToken",
    authorization_pb2.RevokeCardTokenRequest,
    authorization_pb2.RevokeCardTokenResponse,
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

VERIFY_ARQC = _rpc(
    "CryptographyService",
    "VerifyArqc",
    cryptography_pb2.VerifyArqcRequest,
    cryptography_pb2.VerifyArqcResponse,
)
VERIFY_PIN = _rpc(
    "CryptographyService", "VerifyPin", cryptography_pb2.VerifyPinRequest, cryptography_pb2.VerifyPinResponse
)
CHANGE_PIN = _rpc(
    "CryptographyService", "ChangePin", cryptography_pb2.ChangePinRequest, cryptography_pb2.ChangePinResponse
)
UNBLOCK_PIN = _rpc(
    "CryptographyService",
    "UnblockPin",
    cryptography_pb2.UnblockPinRequest,
    cryptography_pb2.UnblockPinResponse,
)
ISSUE_PIN = _rpc(
    "CryptographyService", "IssuePin", cryptography_pb2.IssuePinRequest, cryptography_pb2.IssuePinResponse
)
TRANSLATE_PIN = _rpc(
    "CryptographyService",
    "TranslatePin",
    cryptography_pb2.TranslatePinRequest,
    cryptography_pb2.TranslatePinResponse,
)
GENERATE_MAC = _rpc(
    "CryptographyService",
    "GenerateMac",
    cryptography_pb2.GenerateMacRequest,
    cryptography_pb2.GenerateMacResponse,
)
VERIFY_MAC = _rpc(
    "CryptographyService", "VerifyMac", cryptography_pb2.VerifyMacRequest, cryptography_pb2.VerifyMacResponse
)
GENERATE_CARD_VERIFICATION = _rpc(
    "CryptographyService",
    "GenerateCardVerification",
    cryptography_pb2.GenerateCardVerificationRequest,
    cryptography_pb2.GenerateCardVerificationResponse,
)
VERIFY_CARD_VERIFICATION = _rpc(
    "CryptographyService",
    "VerifyCardVerification",
    cryptography_pb2.VerifyCardVerificationRequest,
    cryptography_pb2.VerifyCardVerificationResponse,
)
GENERATE_ISSUER_SCRIPT = _rpc(
    "CryptographyService",
    "GenerateIssuerScript",
    cryptography_pb2.GenerateIssuerScriptRequest,
    cryptography_pb2.GenerateIssuerScriptResponse,
)
LIST_KEYS = _rpc("KeyService", "ListKeys", keys_pb2.ListKeysRequest, keys_pb2.ListKeysResponse)
PROPOSE_KEY_CHANGE = _rpc(
    "KeyService", "ProposeKeyChange", keys_pb2.ProposeKeyChangeRequest, keys_pb2.ProposeKeyChangeResponse
)
SUBMIT_KEY_COMPONENT = _rpc(
    "KeyService",
    "SubmitKeyComponent",
    keys_pb2.SubmitKeyComponentRequest,
    keys_pb2.SubmitKeyComponentResponse,
)
APPROVE_KEY_CHANGE = _rpc(
    "KeyService", "ApproveKeyChange", keys_pb2.ApproveKeyChangeRequest, keys_pb2.ApproveKeyChangeResponse
)
REJECT_KEY_CHANGE = _rpc(
    "KeyService", "RejectKeyChange", keys_pb2.RejectKeyChangeRequest, keys_pb2.RejectKeyChangeResponse
)
LIST_KEY_CHANGES = _rpc(
    "KeyService", "ListKeyChanges", keys_pb2.ListKeyChangesRequest, keys_pb2.ListKeyChangesResponse
)
LIST_KEY_AUDIT = _rpc(
    "KeyService", "ListKeyAudit", keys_pb2.ListKeyAuditRequest, keys_pb2.ListKeyAuditResponse
)
EXPLAIN_ARQC = _rpc("KeyService", "ExplainArqc", keys_pb2.ExplainArqcRequest, keys_pb2.ExplainArqcResponse)
GET_SETTLEMENT_POSITION = _rpc(
    "SettlementService",
    "GetSettlementPosition",
    settlement_pb2.GetSettlementPositionRequest,
    settlement_pb2.GetSettlementPositionResponse,
)
LIST_CLOSINGS = _rpc(
    "SettlementService",
    "ListClosings",
    settlement_pb2.ListClosingsRequest,
    settlement_pb2.ListClosingsResponse,
)
SUBSCRIBE_EVENTS = ServerStreamRpc(
    "/onecard.v1.SettlementService/SubscribeEvents",
    settlement_pb2.SubscribeEventsRequest,
    settlement_pb2.SubscribeEventsResponse,
)
DOWNLOAD_CLOSING = ServerStreamRpc(
    "/onecard.v1.SettlementService/DownloadClosing",
    settlement_pb2.DownloadClosingRequest,
    settlement_pb2.DownloadClosingResponse,
)
AUTHORIZE_STREAM = StreamRpc(
    "/onecard.v1.AuthorizationService/AuthorizeStream",
    authorization_pb2.AuthorizeStreamRequest,
    authorization_pb2.AuthorizeStreamResponse,
)
LIST_RULES = _rpc("RuleService", "ListRules", rules_pb2.ListRulesRequest, rules_pb2.ListRulesResponse)
PROPOSE_RULE_CHANGE = _rpc(
    "RuleService",
    "ProposeRuleChange",
    rules_pb2.ProposeRuleChangeRequest,
    rules_pb2.ProposeRuleChangeResponse,
)
EXTEND_RULE_CHANGE = _rpc(
    "RuleService", "ExtendRuleChange", rules_pb2.ExtendRuleChangeRequest, rules_pb2.ExtendRuleChangeResponse
)
APPROVE_RULE_CHANGE = _rpc(
    "RuleService",
    "ApproveRuleChange",
    rules_pb2.ApproveRuleChangeRequest,
    rules_pb2.ApproveRuleChangeResponse,
)
REJECT_RULE_CHANGE = _rpc(
    "RuleService", "RejectRuleChange", rules_pb2.RejectRuleChangeRequest, rules_pb2.RejectRuleChangeResponse
)
GET_RULE_CHANGE = _rpc(
    "RuleService", "GetRuleChange", rules_pb2.GetRuleChangeRequest, rules_pb2.GetRuleChangeResponse
)
LIST_RULE_CHANGES = _rpc(
    "RuleService", "ListRuleChanges", rules_pb2.ListRuleChangesRequest, rules_pb2.ListRuleChangesResponse
)
CRYPTOGRAPHY_STREAM = StreamRpc(
    "/onecard.v1.CryptographyService/CryptographyStream",
    cryptography_pb2.CryptographyStreamRequest,
    cryptography_pb2.CryptographyStreamResponse,
)


class OneCardClient:
    """Every RPC of the core over one channel. Each method raises ``OneCardCallError`` when there is no answer."""

    def __init__(self, channel: OneCardChannel) -> None:
        self.channel = channel

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

    def subscribe_events(
        self, request: settlement_pb2.SubscribeEventsRequest
    ) -> AsyncGenerator[settlement_pb2.SubscribeEventsResponse, None]:
        """Events after ``after_sequence``, without an end; goes on by itself after a break, each event once."""
        return subscribe(self.channel, SUBSCRIBE_EVENTS, request)

    async def get_settlement_position(
        self, request: settlement_pb2.GetSettlementPositionRequest
    ) -> settlement_pb2.GetSettlementPositionResponse:
        """Tells what moved on a participant's accounts in a business date."""
        return await self.channel.unary(GET_SETTLEMENT_POSITION, request)

    async def list_closings(
        self, request: settlement_pb2.ListClosingsRequest
    ) -> settlement_pb2.ListClosingsResponse:
        """Lists closed days, the latest first."""
        return await self.channel.unary(LIST_CLOSINGS, request)

    def download_closing(
        self, request: settlement_pb2.DownloadClosingRequest
    ) -> AsyncGenerator[settlement_pb2.DownloadClosingResponse, None]:
        """A file of a closing in pieces; one that breaks off is asked for again from the start."""
        return answers(self.channel, DOWNLOAD_CLOSING, request)
