"""What each RPC asks of its caller, and who is let in under load.

The table is complete: a served RPC without a row stops the start. Under load the classes are refused in order:
each may fill only its share of the worker's places in flight, so that loss reports pass when everything else waits.
"""

from dataclasses import dataclass
from enum import Enum

from server.errors import OverloadedError


class AdmissionClass(Enum):
    """The share of the places in flight that calls of a class may fill.

    Subscriptions stay open for hours: their few places are apart, so that they take none from calls.
    """

    SUBSCRIPTION = 0.03
    QUERY = 0.80
    INTERACTIVE = 0.95
    CRITICAL = 1.00


@dataclass(frozen=True, slots=True)
class RpcPolicy:
    """The grant an RPC needs and its class of admission."""

    rpc_class: str
    admission: AdmissionClass


def _policies(service: str, rows: dict[str, RpcPolicy]) -> dict[str, RpcPolicy]:
    return {f"/onecard.v1.{service}/{rpc}": policy for rpc, policy in rows.items()}


RPC_POLICIES: dict[str, RpcPolicy] = {
    **_policies(
        "AuthorizationService",
        {
            "Authorize": RpcPolicy("authorization", AdmissionClass.INTERACTIVE),
            "AuthorizeStream": RpcPolicy("authorization", AdmissionClass.INTERACTIVE),
            "LookUpOperation": RpcPolicy("authorization_lookup", AdmissionClass.QUERY),
            "RegisterCardToken": RpcPolicy("card_token", AdmissionClass.INTERACTIVE),
            "RevokeCardToken": RpcPolicy("card_token", AdmissionClass.INTERACTIVE),
        },
    ),
    **_policies(
        "CardAuthenticationService",
        {
            "CreateChallenge": RpcPolicy("card_authentication", AdmissionClass.INTERACTIVE),
            "AuthenticateCard": RpcPolicy("card_authentication", AdmissionClass.INTERACTIVE),
        },
    ),
    **_policies(
        "CryptographyService",
        {
            "VerifyArqc": RpcPolicy("verify_arqc", AdmissionClass.INTERACTIVE),
            "VerifyPin": RpcPolicy("verify_pin", AdmissionClass.INTERACTIVE),
            "ChangePin": RpcPolicy("change_pin", AdmissionClass.INTERACTIVE),
            "UnblockPin": RpcPolicy("unblock_pin", AdmissionClass.INTERACTIVE),
            "IssuePin": RpcPolicy("issue_pin", AdmissionClass.INTERACTIVE),
            "TranslatePin": RpcPolicy("translate_pin", AdmissionClass.INTERACTIVE),
            "GenerateMac": RpcPolicy("generate_mac", AdmissionClass.INTERACTIVE),
            "VerifyMac": RpcPolicy("verify_mac", AdmissionClass.INTERACTIVE),
            "GenerateCardVerification": RpcPolicy("generate_card_verification", AdmissionClass.INTERACTIVE),
            "VerifyCardVerification": RpcPolicy("verify_card_verification", AdmissionClass.INTERACTIVE),
            "GenerateIssuerScript": RpcPolicy("generate_issuer_script", AdmissionClass.INTERACTIVE),
            "CryptographyStream": RpcPolicy("cryptography_stream", AdmissionClass.INTERACTIVE),
        },
    ),
    **_policies(
        "IdentityService",
        {
            "VerifyIdentity": RpcPolicy("identity", AdmissionClass.INTERACTIVE),
            "IssueCardCode": RpcPolicy("card_code", AdmissionClass.INTERACTIVE),
        },
    ),
    **_policies(
        "CardService",
        {
            "IssueCard": RpcPolicy("card_issue", AdmissionClass.INTERACTIVE),
            "GetCardStatus": RpcPolicy("card_status", AdmissionClass.QUERY),
            "ReportLoss": RpcPolicy("card_loss", AdmissionClass.CRITICAL),
            "LiftLoss": RpcPolicy("card_loss", AdmissionClass.INTERACTIVE),
        },
    ),
    **_policies(
        "KeyService",
        {
            "ListKeys": RpcPolicy("key_view", AdmissionClass.QUERY),
            "ProposeKeyChange": RpcPolicy("key_custodian", AdmissionClass.INTERACTIVE),
            "SubmitKeyComponent": RpcPolicy("key_custodian", AdmissionClass.INTERACTIVE),
            "ApproveKeyChange": RpcPolicy("key_custodian", AdmissionClass.INTERACTIVE),
            "RejectKeyChange": RpcPolicy("key_custodian", AdmissionClass.INTERACTIVE),
            "ListKeyChanges": RpcPolicy("key_view", AdmissionClass.QUERY),
            "ListKeyAudit": RpcPolicy("key_view", AdmissionClass.QUERY),
            "ExplainArqc": RpcPolicy("key_diagnosis", AdmissionClass.QUERY),
        },
    ),
    **_policies(
        "RuleService",
        {
            "ListRules": RpcPolicy("rule_view", AdmissionClass.QUERY),
            "ProposeRuleChange": RpcPolicy("rule_editor", AdmissionClass.INTERACTIVE),
            "ExtendRuleChange": RpcPolicy("rule_editor", AdmissionClass.INTERACTIVE),
            "ApproveRuleChange": RpcPolicy("rule_editor", AdmissionClass.INTERACTIVE),
            "RejectRuleChange": RpcPolicy("rule_editor", AdmissionClass.INTERACTIVE),
            "GetRuleChange": RpcPolicy("rule_view", AdmissionClass.QUERY),
            "ListRuleChanges": RpcPolicy("rule_view", AdmissionClass.QUERY),
        },
    ),
    **_policies(
        "SettlementService",
        {
            "SubscribeEvents": RpcPolicy("settlement_events", AdmissionClass.SUBSCRIPTION),
            "GetSettlementPosition": RpcPolicy("settlement_position", AdmissionClass.QUERY),
            "ListClosings": RpcPolicy("settlement_closing", AdmissionClass.QUERY),
            "DownloadClosing": RpcPolicy("settlement_closing", AdmissionClass.QUERY),
        },
    ),
}
# Some operations of `Authorize` need one more class than the RPC does.
OPERATION_CLASSES = frozenset({"deposit", "benefit_credit", "advice"})
RPC_CLASSES = frozenset(policy.rpc_class for policy in RPC_POLICIES.values()) | OPERATION_CLASSES


class Admission:
    """Counts the calls in flight in this worker."""

    def __init__(self, *, in_flight_max: int) -> None:
        self._places = {klass: max(1, int(klass.value * in_flight_max)) for klass in AdmissionClass}
        self.in_flight = 0
        self.subscriptions = 0

    def enter(self, admission: AdmissionClass) -> None:
        """Takes a place; ``leave`` gives it back.

        Raises:
            OverloadedError: the class has filled its share.
        """
        if admission is AdmissionClass.SUBSCRIPTION:
            if self.subscriptions >= self._places[admission]:
                raise OverloadedError("too many subscriptions", retry_delay_ms=1_000)
            self.subscriptions += 1
            return
        if self.in_flight >= self._places[admission]:
            raise OverloadedError("too many calls in flight")
        self.in_flight += 1

    def leave(self, admission: AdmissionClass) -> None:
        """Gives back a place that a call of this class took."""
        if admission is AdmissionClass.SUBSCRIPTION:
            self.subscriptions -= 1
        else:
            self.in_flight -= 1
