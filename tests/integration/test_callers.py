"""Who may call: certificates, participants, grants, purposes, and messages of bearable size."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from core_under_test import (
    CALL_S,
    GRANTS_IN_FORCE_S,
    Caller,
    Core,
    authentication,
    card_issue,
    changed,
    code_issue,
    deposit,
    loss_lift,
    loss_report,
    name_and_number,
    new_id,
    purchase,
    refusal_of,
    status_query,
    verification,
    without,
)
from entry_requests import new_token, registration, revocation
from onecard.v1 import authorization_pb2, card_authentication_pb2, keys_pb2, rules_pb2, settlement_pb2
from pin_pad import pin_change, pin_issue, pin_unblock, pin_verification, stateless_requests
from virtual_card import VirtualCard

from server.development_ca import issue_participant_certificate
from server.edge.admission import RPC_POLICIES
from server.grpc_server import SERVICES


def cryptogram(card: VirtualCard) -> card_authentication_pb2.CardCryptogram:
    return card_authentication_pb2.CardCryptogram(pan=card.pan, chip=card.sign(0))


# Of the RPCs that keep nothing, by name.
STATELESS = list(stateless_requests("6217000010012345677"))
# A valid request of each unary RPC on a card of the core.
REQUESTS: dict[str, Callable[[VirtualCard], Any]] = {
    "AuthorizationService/Authorize": purchase,
    "AuthorizationService/RegisterCardToken": registration,
    "CardAuthenticationService/CreateChallenge": lambda _: card_authentication_pb2.CreateChallengeRequest(),
    "CardAuthenticationService/AuthenticateCard": lambda c: authentication(cryptogram=cryptogram(c)),
    "IdentityService/VerifyIdentity": lambda c: verification(name_and_number=name_and_number(c)),
    "IdentityService/IssueCardCode": code_issue,
    "CardService/IssueCard": card_issue,
    "CardService/GetCardStatus": status_query,
    "CardService/ReportLoss": loss_report,
    "CardService/LiftLoss": loss_lift,
    "CryptographyService/VerifyPin": pin_verification,
    "CryptographyService/ChangePin": pin_change,
    "CryptographyService/UnblockPin": pin_unblock,
    "CryptographyService/IssuePin": pin_issue,
    **{
        f"CryptographyService/{rpc}": lambda card, rpc=rpc: stateless_requests(card.pan)[rpc]
        for rpc in STATELESS
    },
}
# Those that name no card: the same callers are refused them.
KEY_REQUESTS: dict[str, Callable[[VirtualCard], Any]] = {
    "AuthorizationService/LookUpOperation": lambda _: authorization_pb2.LookUpOperationRequest(
        request_id=new_id()
    ),
    "AuthorizationService/RevokeCardToken": lambda _: revocation(new_token()),
    "KeyService/ListKeys": lambda _: keys_pb2.ListKeysRequest(),
    "KeyService/ProposeKeyChange": lambda _: keys_pb2.ProposeKeyChangeRequest(
        request_id=new_id(), justification="test", rotate=keys_pb2.RotateKey(name="zpk-sm4")
    ),
    "KeyService/SubmitKeyComponent": lambda _: keys_pb2.SubmitKeyComponentRequest(
        request_id=new_id(), change_id=new_id(), component=bytes(16)
    ),
    "KeyService/ApproveKeyChange": lambda _: keys_pb2.ApproveKeyChangeRequest(change_id=new_id()),
    "KeyService/RejectKeyChange": lambda _: keys_pb2.RejectKeyChangeRequest(change_id=new_id()),
    "KeyService/ListKeyChanges": lambda _: keys_pb2.ListKeyChangesRequest(),
    "KeyService/ListKeyAudit": lambda _: keys_pb2.ListKeyAuditRequest(),
    "KeyService/ExplainArqc": lambda c: keys_pb2.ExplainArqcRequest(pan=c.pan, chip=c.sign(0)),
    "RuleService/ListRules": lambda _: rules_pb2.ListRulesRequest(kind=rules_pb2.RULE_KIND_LIMIT),
    "RuleService/ProposeRuleChange": lambda _: rules_pb2.ProposeRuleChangeRequest(
        request_id=new_id(),
        kind=rules_pb2.RULE_KIND_LIMIT,
        justification="test",
        rules=[rules_pb2.ProposedRule(content="{}", subjects=["tap"])],
    ),
    "RuleService/ExtendRuleChange": lambda _: rules_pb2.ExtendRuleChangeRequest(
        request_id=new_id(), change_id=new_id()
    ),
    "RuleService/ApproveRuleChange": lambda _: rules_pb2.ApproveRuleChangeRequest(
        request_id=new_id(), change_id=new_id()
    ),
    "RuleService/RejectRuleChange": lambda _: rules_pb2.RejectRuleChangeRequest(
        request_id=new_id(), change_id=new_id()
    ),
    "RuleService/GetRuleChange": lambda _: rules_pb2.GetRuleChangeRequest(change_id=new_id()),
    "RuleService/ListRuleChanges": lambda _: rules_pb2.ListRuleChangesRequest(),
    "SettlementService/GetSettlementPosition": lambda _: settlement_pb2.GetSettlementPositionRequest(
        business_date="20260101"
    ),
    "SettlementService/ListClosings": lambda _: settlement_pb2.ListClosingsRequest(),
}
WITH_PURPOSE = [
    f"{service.name}/{method.name}"
    for service in SERVICES.values()
    for method in service.methods
    if "catalogue_item" in method.input_type.fields_by_name
]
# Whose answer for a card of a region not granted is that for no card.
AS_UNKNOWN = {
    "AuthorizationService/RegisterCardToken",
    "IdentityService/IssueCardCode",
    "CardService/GetCardStatus",
    "CardService/ReportLoss",
    "CardService/LiftLoss",
}
# A PIN of a card of a region not granted is that of no card: test_card_pins.py.
ON_A_CARD = [
    rpc
    for rpc in REQUESTS
    if not rpc.startswith("CryptographyService/") and not rpc.endswith("/CreateChallenge")
]


async def send(caller: Caller, rpc: str, request: Any) -> Any:
    return await caller.raw(rpc, request)


def test_every_unary_rpc_is_tried() -> None:
    served = {f"{name.split('.')[-1]}/{m.name}" for name, s in SERVICES.items() for m in s.methods}
    streams = {
        "AuthorizationService/AuthorizeStream",
        "CryptographyService/CryptographyStream",
        # Refused in test_subscriptions.py and test_settlement_core.py.
        "SettlementService/SubscribeEvents",
        "SettlementService/DownloadClosing",
    }
    assert served - set(REQUESTS | KEY_REQUESTS) == streams


@pytest.mark.parametrize("rpc", REQUESTS | KEY_REQUESTS)
@pytest.mark.parametrize("participant_id", ["stranger-01", "suspended-01"])
async def test_certificate_of_no_active_participant_is_unauthenticated(
    core: Core, rpc: str, participant_id: str
) -> None:
    card = core.card()
    request = (REQUESTS | KEY_REQUESTS)[rpc](card)
    refusal = await refusal_of(send(core.caller(participant_id), rpc, request))
    assert (refusal.code.name, refusal.reason) == ("UNAUTHENTICATED", "CALLER_UNKNOWN")
    if request_id := getattr(request, "request_id", ""):
        assert await core.stored(request_id) == 0


@pytest.mark.parametrize("rpc", REQUESTS | KEY_REQUESTS)
async def test_rpc_whose_class_is_not_granted_is_refused(core: Core, rpc: str) -> None:
    rpc_class = RPC_POLICIES[f"/onecard.v1.{rpc}"].rpc_class
    request = (REQUESTS | KEY_REQUESTS)[rpc](core.card())
    for participant_id in ("no-grants", without(rpc_class)):
        refusal = await refusal_of(send(core.caller(participant_id), rpc, request))
        assert (refusal.code.name, refusal.reason) == ("PERMISSION_DENIED", "RPC_CLASS_NOT_GRANTED")


async def test_stream_without_its_class_is_refused(core: Core) -> None:
    for participant_id, code in (
        ("no-grants", "PERMISSION_DENIED"),
        (without("authorization"), "PERMISSION_DENIED"),
        ("stranger-01", "UNAUTHENTICATED"),
    ):
        # Nothing is written: grpc.aio tells INTERNAL of its own when a write meets a stream that was refused.
        call = core.caller(participant_id).authorization.AuthorizeStream(timeout=CALL_S)
        assert (await call.code()).name == code


async def test_deposit_needs_its_class_beside_that_of_the_rpc(core: Core) -> None:
    card = core.card()
    terminal = core.caller(without("deposit"))
    refusal = await refusal_of(terminal.authorize(deposit(card)))
    assert (refusal.code.name, refusal.reason) == ("PERMISSION_DENIED", "RPC_CLASS_NOT_GRANTED")
    (answer,) = await terminal.frames([deposit(card), purchase(card)])
    assert answer.results[0].error.reason == "RPC_CLASS_NOT_GRANTED"
    assert answer.results[1].response.response_code == "00"


@pytest.mark.parametrize("rpc", ON_A_CARD)
async def test_card_of_a_region_not_granted_is_refused_or_unknown(core: Core, rpc: str) -> None:
    nanchang = core.caller("nanchang-01")
    make = REQUESTS[rpc]
    draw = core.unissued_card if rpc == "CardService/IssueCard" else core.card
    cards = [draw() for _ in range(12)]
    abroad = next(card for card in cards if card.facts.issuing_region != "360100")
    at_home = next(card for card in cards if card.facts.issuing_region == "360100")
    request = make(abroad)
    if "name_and_number" in request.DESCRIPTOR.fields_by_name:
        # A refusal would tell that the person has a card: the answer is that of an unknown person.
        answer = await nanchang.identity.VerifyIdentity(request, timeout=CALL_S)
        assert not answer.verified
        nobody = verification(name_and_number=name_and_number(core.unissued_card()))
        assert answer == await nanchang.identity.VerifyIdentity(nobody, timeout=CALL_S)
    else:
        refusal = await refusal_of(send(nanchang, rpc, request))
        if rpc in AS_UNKNOWN:
            assert (refusal.code.name, refusal.reason, refusal.field) == ("NOT_FOUND", "CARD_UNKNOWN", "card")
            assert refusal == await refusal_of(send(nanchang, rpc, make(core.unissued_card())))
        else:
            assert (refusal.code.name, refusal.reason) == ("PERMISSION_DENIED", "REGION_NOT_GRANTED")
        assert await core.stored(getattr(request, "request_id", "") or abroad.facts.card_alias.hex() * 2) == 0
    if rpc == "CardService/LiftLoss":
        await nanchang.cards.ReportLoss(loss_report(at_home), timeout=CALL_S)
    await send(nanchang, rpc, make(at_home))


@pytest.mark.parametrize("rpc", WITH_PURPOSE)
async def test_purpose_not_granted_unknown_or_not_in_force_is_refused(
    core: Core, bank: Caller, rpc: str
) -> None:
    request = (REQUESTS | KEY_REQUESTS)[rpc](core.card())
    trials = [
        (core.caller("counter-01"), "card.apply", 1, "PERMISSION_DENIED", "CATALOGUE_ITEM_NOT_GRANTED"),
        (bank, "no.such.item", 1, "NOT_FOUND", "CATALOGUE_ITEM_UNKNOWN"),
        (bank, "identity.counter", 9, "NOT_FOUND", "CATALOGUE_ITEM_UNKNOWN"),
        (bank, "identity.counter", 2, "FAILED_PRECONDITION", "CATALOGUE_ITEM_NOT_IN_FORCE"),
        (bank, "card.ended", 1, "FAILED_PRECONDITION", "CATALOGUE_ITEM_NOT_IN_FORCE"),
    ]
    for caller, item, version, code, reason in trials:
        wrong = changed(request, catalogue_item=item, catalogue_item_version=version)
        refusal = await refusal_of(send(caller, rpc, wrong))
        assert (refusal.code.name, refusal.reason, refusal.field) == (code, reason, "catalogue_item")
    if request_id := getattr(request, "request_id", ""):
        assert await core.stored(request_id) == 0


async def test_withdrawn_grant_is_out_of_force_within_seconds(core: Core) -> None:
    await core.add_participant("short-lived", {"rpc_class": ["authorization"], "region": ["36"]})
    caller = core.caller("short-lived")
    card = core.card()

    async def until(code: str) -> None:
        seen = ""
        while seen != code:
            try:
                await caller.authorize(purchase(card, 1))
                seen = "OK"
            except grpc.aio.AioRpcError as error:
                seen = error.code().name

    await until("OK")
    await core.database.execute("DELETE FROM participant_grants WHERE participant_id = 'short-lived'")
    await until("PERMISSION_DENIED")
    await core.database.execute(
        "UPDATE participants SET state = 'suspended' WHERE participant_id = 'short-lived'"
    )
    await until("UNAUTHENTICATED")


async def test_open_stream_does_not_outlive_the_grant(core: Core) -> None:
    await core.add_participant("streaming-01", {"rpc_class": ["authorization"], "region": ["36"]})
    await asyncio.sleep(GRANTS_IN_FORCE_S)
    caller, card = core.caller("streaming-01"), core.card()
    call = caller.authorization.AuthorizeStream(timeout=CALL_S)

    async def one_frame() -> str:
        await call.write(authorization_pb2.AuthorizeStreamRequest(operations=[purchase(card, 1)]))
        answer = await call.read()
        if answer is grpc.aio.EOF:
            return (await call.code()).name
        return str(answer.results[0].response.response_code)

    assert await one_frame() == "00"
    await core.database.execute("DELETE FROM participant_grants WHERE participant_id = 'streaming-01'")
    await asyncio.sleep(GRANTS_IN_FORCE_S)
    try:
        outcome = await one_frame()
    except grpc.aio.AioRpcError as error:
        outcome = error.code().name
    assert outcome == "PERMISSION_DENIED"


async def refused_connection(caller: Caller, request: Any) -> None:
    refusal = await refusal_of(caller.authorize(request, timeout_s=3))
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == ""


async def test_plaintext_connection_is_refused(core: Core) -> None:
    async with grpc.aio.insecure_channel(core.address) as channel:
        call = channel.unary_unary("/onecard.v1.AuthorizationService/Authorize", request_serializer=None)
        refusal = await refusal_of(call(purchase(core.card()).SerializeToString(), timeout=3))
    assert refusal.code is grpc.StatusCode.UNAVAILABLE


async def test_connection_without_a_client_certificate_is_refused(core: Core) -> None:
    authority = (core.data_dir / "tls" / "ca.pem").read_bytes()
    caller = core.caller_with(grpc.ssl_channel_credentials(authority))
    request = purchase(core.card())
    await refused_connection(caller, request)
    assert await core.stored(request.request_id) == 0


async def test_certificate_of_another_authority_is_refused(core: Core, tmp_path: Path) -> None:
    own = (core.data_dir / "tls" / "ca.pem").read_bytes()
    foreign = issue_participant_certificate(tmp_path, "bank-01")
    caller = core.caller_with(
        grpc.ssl_channel_credentials(own, foreign.key.read_bytes(), foreign.certificate.read_bytes())
    )
    request = purchase(core.card())
    await refused_connection(caller, request)
    assert await core.stored(request.request_id) == 0


async def test_server_of_another_authority_is_not_trusted_by_the_caller(core: Core, tmp_path: Path) -> None:
    files = issue_participant_certificate(core.data_dir, "bank-01")
    foreign = issue_participant_certificate(tmp_path, "bank-01")
    caller = core.caller_with(
        grpc.ssl_channel_credentials(
            foreign.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
        )
    )
    await refused_connection(caller, purchase(core.card()))


async def test_oversized_message_is_refused_and_the_connection_lives(core: Core, bank: Caller) -> None:
    huge = purchase(core.card(), merchant_id="M" * (2 << 20))
    refusal = await refusal_of(bank.authorize(huge))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await refusal_of(bank.frames([huge]))
    assert await core.stored(huge.request_id) == 0
    assert (await bank.authorize(purchase(core.card()))).response_code == "00"


async def test_unknown_method_and_service_are_unimplemented(bank: Caller) -> None:
    for path in ("/onecard.v1.CardService/DestroyCard", "/onecard.v2.CardService/GetCardStatus", "/x/y"):
        call = bank.channel.unary_unary(path, request_serializer=None)
        refusal = await refusal_of(call(b"", timeout=CALL_S))
        assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
