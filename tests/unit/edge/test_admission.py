"""What each RPC asks of its caller, and who is refused first when the places are taken."""

import pytest

from server.edge.admission import OPERATION_CLASSES, RPC_CLASSES, RPC_POLICIES, Admission, AdmissionClass
from server.edge.caller import Participant
from server.errors import NotGrantedError, OverloadedError
from server.grpc_server import SERVICES


def test_every_served_rpc_has_a_policy_and_every_policy_an_rpc() -> None:
    served = {f"/{name}/{method.name}" for name, service in SERVICES.items() for method in service.methods}
    assert set(RPC_POLICIES) == served
    assert {policy.rpc_class for policy in RPC_POLICIES.values()} | OPERATION_CLASSES == RPC_CLASSES
    assert {"deposit", "benefit_credit", "advice"} == OPERATION_CLASSES


def test_classes_are_those_the_protos_name() -> None:
    assert {rpc.split("/")[2]: policy.rpc_class for rpc, policy in RPC_POLICIES.items()} == {
        "VerifyArqc": "verify_arqc",
        "VerifyPin": "verify_pin",
        "ChangePin": "change_pin",
        "UnblockPin": "unblock_pin",
        "IssuePin": "issue_pin",
        "TranslatePin": "translate_pin",
        "GenerateMac": "generate_mac",
        "VerifyMac": "verify_mac",
        "GenerateCardVerification": "generate_card_verification",
        "VerifyCardVerification": "verify_card_verification",
        "GenerateIssuerScript": "generate_issuer_script",
        "CryptographyStream": "cryptography_stream",
        "Authorize": "authorization",
        "AuthorizeStream": "authorization",
        "LookUpOperation": "authorization_lookup",
        "RegisterCardToken": "card_token",
        "RevokeCardToken": "card_token",
        "CreateChallenge": "card_authentication",
        "AuthenticateCard": "card_authentication",
        "VerifyIdentity": "identity",
        "IssueCardCode": "card_code",
        "IssueCard": "card_issue",
        "GetCardStatus": "card_status",
        "ReportLoss": "card_loss",
        "LiftLoss": "card_loss",
        "ListKeys": "key_view",
        "ProposeKeyChange": "key_custodian",
        "SubmitKeyComponent": "key_custodian",
        "ApproveKeyChange": "key_custodian",
        "RejectKeyChange": "key_custodian",
        "ListKeyChanges": "key_view",
        "ListKeyAudit": "key_view",
        "ListRules": "rule_view",
        "ProposeRuleChange": "rule_editor",
        "ExtendRuleChange": "rule_editor",
        "ApproveRuleChange": "rule_editor",
        "RejectRuleChange": "rule_editor",
        "GetRuleChange": "rule_view",
        "ListRuleChanges": "rule_view",
        "ExplainArqc": "key_diagnosis",
        "SubscribeEvents": "settlement_events",
        "GetSettlementPosition": "settlement_position",
        "ListClosings": "settlement_closing",
        "DownloadClosing": "settlement_closing",
    }


def fill(admission: Admission, klass: AdmissionClass) -> int:
    """Takes places until the class is refused; gives how many were taken in all."""
    while True:
        try:
            admission.enter(klass)
        except OverloadedError:
            return admission.in_flight + admission.subscriptions


def test_queries_are_refused_before_decisions_before_loss_reports() -> None:
    admission = Admission(in_flight_max=100)
    assert fill(admission, AdmissionClass.QUERY) == 80
    assert fill(admission, AdmissionClass.INTERACTIVE) == 95
    assert fill(admission, AdmissionClass.CRITICAL) == 100
    admission.leave(AdmissionClass.CRITICAL)
    with pytest.raises(OverloadedError):
        admission.enter(AdmissionClass.INTERACTIVE)
    admission.enter(AdmissionClass.CRITICAL)


def test_subscriptions_take_no_place_from_calls_nor_calls_from_them() -> None:
    admission = Admission(in_flight_max=100)
    assert fill(admission, AdmissionClass.SUBSCRIPTION) == 3
    assert fill(admission, AdmissionClass.CRITICAL) == 100 + 3
    admission.leave(AdmissionClass.SUBSCRIPTION)
    admission.enter(AdmissionClass.SUBSCRIPTION)
    assert admission.in_flight == 100


def test_loss_report_is_the_only_call_that_passes_last() -> None:
    critical = [rpc for rpc, policy in RPC_POLICIES.items() if policy.admission is AdmissionClass.CRITICAL]
    assert critical == ["/onecard.v1.CardService/ReportLoss"]


def test_smallest_worker_admits_one_of_each_class() -> None:
    for klass in AdmissionClass:
        assert fill(Admission(in_flight_max=1), klass) == 1


def participant(**grants: object) -> Participant:
    parts: dict[str, object] = {
        "rpc_classes": frozenset(),
        "regions": (),
        "catalogue_items": frozenset(),
        "keys": frozenset(),
        "kind": "bank",
    }
    return Participant(participant_id="bank-01", settlement_account_id=1, **parts | grants)  # type: ignore[arg-type]


def test_nothing_is_granted_that_was_not_named() -> None:
    nobody = participant()
    for refused in (
        lambda: nobody.require_rpc_class("authorization"),
        lambda: nobody.require_catalogue_item("card.loss"),
        lambda: nobody.require_region("360100"),
    ):
        with pytest.raises(NotGrantedError):
            refused()


def test_star_grants_everything_of_its_kind_only() -> None:
    star = participant(rpc_classes=frozenset({"*"}))
    star.require_rpc_class("deposit")
    participant(catalogue_items=frozenset({"*"})).require_catalogue_item("card.loss")
    with pytest.raises(NotGrantedError):
        star.require_region("360100")


@pytest.mark.parametrize(
    ("granted", "region", "is_granted"),
    [
        ("36", "360100", True),
        ("3601", "360102", True),
        ("3601", "360200", False),
        ("360102", "360102", True),
        ("360102", "360100", False),
        ("", "360100", True),
        ("44", "360144", False),
    ],
)
def test_region_grant_is_a_prefix(granted: str, region: str, is_granted: bool) -> None:
    assert participant(regions=(granted,)).may_region(region) is is_granted
