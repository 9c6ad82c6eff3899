"""Every field of every request, out of its documented bounds: INVALID_ARGUMENT that names it and never quotes it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from core_under_test import (
    CALL_S,
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
)
from entry_requests import new_token, registration, revocation
from google.protobuf.descriptor import Descriptor
from malformed_values import BAD_VALUES, MORE_BAD_VALUES
from money_requests import by_stan, refund, transfer
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import card_authentication_pb2, common_pb2, cryptography_pb2, settlement_pb2
from pin_pad import pin_change, pin_issue, pin_unblock, pin_verification, stateless_requests
from virtual_card import VirtualCard

from server.grpc_server import SERVICES

STATELESS = list(stateless_requests("6217000010012345677"))
LESS_BAD_VALUES: dict[str, tuple[Any, ...]] = {
    # Not set, so that it is the original which is not named.
    "Authorize.original.request_id": ("",),
    "Authorize.original.stan": (0,),
    "AuthenticateCard.cryptogram.amount_minor": (0,),
    # Cards of other issuers: their numbers have other lengths, and need no valid Luhn digit.
    **{f"{rpc}.pan": ("621700001001234567", "6217000010012345678") for rpc in STATELESS},
    "VerifyArqc.atc": (0,),
    "GenerateIssuerScript.atc": (0,),
    "GenerateCardVerification.kind": (3,),
    "VerifyCardVerification.kind": (3,),
}
# Messages whose absence is the mistake, with the name the error gives them.
ABSENT = {
    "Authorize.chip": "chip",
    "LookUpOperation.key": "key",
    "RegisterCardToken.card": "card",
    "VerifyIdentity.credential": "credential",
    "AuthenticateCard.credential": "credential",
    "IssueCardCode.card": "card",
    "GetCardStatus.card": "card",
    "ReportLoss.card": "card",
    "LiftLoss.card": "card",
    "UnblockPin.card": "card",
    "VerifyPin.pin": "pin.format",
    "ChangePin.new_pin": "new_pin.format",
    "IssuePin.key": "key.name",
    "TranslatePin.source": "source.format",
    "GenerateMac.key": "key.name",
}


def cryptogram(card: VirtualCard) -> card_authentication_pb2.CardCryptogram:
    return card_authentication_pb2.CardCryptogram(pan=card.pan, chip=card.sign(0))


def chip_answer(card: VirtualCard) -> common_pb2.ChipAnswer:
    return common_pb2.ChipAnswer(
        identification_code=card.identification_code, challenge_token="x" * 51, response=bytes(8)
    )


def references(make: Callable[..., Any], card: VirtualCard) -> list[Any]:
    named = ("pan", "identification_code", "identity_number")
    return [make(card, card=common_pb2.CardReference(**{name: getattr(card, name)})) for name in named]


def valid_requests(rpc: str, card: VirtualCard) -> list[Any]:
    """Valid requests of an RPC that together set every field."""
    makers: dict[str, Callable[[], list[Any]]] = {
        "Authorize": lambda: [purchase(card)],
        "LookUpOperation": lambda: [
            pb.LookUpOperationRequest(request_id=new_id()),
            pb.LookUpOperationRequest(rrn="000000000001"),
            pb.LookUpOperationRequest(
                switch_key=pb.SwitchKey(terminal_id="T1", stan=1, business_date="20261124", mti_class=2)
            ),
        ],
        "RegisterCardToken": lambda: references(registration, card),
        "RevokeCardToken": lambda: [revocation(new_token())],
        "VerifyIdentity": lambda: [
            verification(chip=chip_answer(card)),
            verification(card_code="x" * 52),
            verification(name_and_number=name_and_number(card)),
        ],
        "AuthenticateCard": lambda: [
            authentication(answer=chip_answer(card)),
            authentication(cryptogram=cryptogram(card)),
        ],
        "IssueCard": lambda: [card_issue(card)],
        "IssueCardCode": lambda: references(code_issue, card),
        "GetCardStatus": lambda: references(status_query, card),
        "ReportLoss": lambda: references(loss_report, card),
        "LiftLoss": lambda: references(loss_lift, card),
        "VerifyPin": lambda: [pin_verification(card)],
        "ChangePin": lambda: [pin_change(card)],
        "UnblockPin": lambda: references(pin_unblock, card),
        "IssuePin": lambda: [pin_issue(card)],
        "SubscribeEvents": lambda: [settlement_pb2.SubscribeEventsRequest()],
        "GetSettlementPosition": lambda: [
            settlement_pb2.GetSettlementPositionRequest(business_date="20261124")
        ],
        "ListClosings": lambda: [settlement_pb2.ListClosingsRequest()],
        "DownloadClosing": lambda: [
            settlement_pb2.DownloadClosingRequest(
                business_date="20261124", file=settlement_pb2.CLOSING_FILE_CSV
            )
        ],
    }
    if rpc == "VerifyArqc":
        by_method_1 = stateless_requests(card.pan)[rpc]
        by_method_2 = cryptography_pb2.ArpcMethod2(csu=bytes(4), proprietary=bytes(8))
        return [by_method_1, changed(by_method_1, method_1=None, method_2=by_method_2)]
    if rpc in STATELESS:
        return [stateless_requests(card.pan)[rpc]]
    return makers[rpc]()


# Requests of Authorize that carry what a purchase does not.
CARRYING: dict[str, Callable[[VirtualCard], Any]] = {
    "to_pan": lambda card: transfer(card, card),
    "is_advice": deposit,
    "partial_approval_allowed": deposit,
    "original.request_id": lambda card: refund(card, purchase(card)),
    "original.rrn": lambda card: refund(
        card, purchase(card), original=pb.OriginalReference(rrn="000000000001")
    ),
    **{
        f"original.{name}": lambda card: refund(card, purchase(card), original=by_stan(purchase(card)))
        for name in ("stan", "terminal_id", "business_date", "mti_class")
    },
}
# What names a card in place of its number, and what proves the message or the holder, are tried with what they are for.
ELSEWHERE = ("Authorize.card_code", "Authorize.card_token", "Authorize.pin.", "Authorize.mac.")


def leaves(descriptor: Descriptor, prefix: str = "") -> Iterator[str]:
    for field in descriptor.fields:
        if field.message_type is None:
            yield prefix + field.name
        else:
            yield from leaves(field.message_type, f"{prefix}{field.name}.")


METHODS = {
    method.name: (f"{service}/{method.name}", method)
    for service, descriptor in SERVICES.items()
    for method in descriptor.methods
    # Their callers are operators, with tests of their own.
    if descriptor.name not in ("KeyService", "RuleService")
}
# Streams of frames carry the unary requests, and a challenge has no field to break.
RPCS = sorted(
    rpc for rpc, (_, method) in METHODS.items() if not method.client_streaming and rpc != "CreateChallenge"
)
FIELDS = [
    field
    for rpc in RPCS
    for path in leaves(METHODS[rpc][1].input_type)
    if not (field := f"{rpc}.{path}").startswith(ELSEWHERE)
]


def bad_values(field: str) -> list[Any]:
    values = BAD_VALUES[field.rsplit(".", 1)[1]] + MORE_BAD_VALUES.get(field, ())
    return [value for value in values if value not in LESS_BAD_VALUES.get(field, ())]


def carrier(rpc: str, path: str, card: VirtualCard) -> Any:
    """A valid request that has the field."""
    if rpc == "Authorize" and path in CARRYING:
        return CARRYING[path](card)
    return next(request for request in valid_requests(rpc, card) if carries(request, path))


def with_value(message: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    if rest:
        return changed(message, **{name: with_value(getattr(message, name), rest, value)})
    copy = changed(message)
    copy.ClearField(name)
    if isinstance(value, tuple):
        getattr(copy, name).extend(value)
    else:
        setattr(copy, name, value)
    return copy


def carries(message: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.containing_oneof is not None and not message.HasField(name):
        return False
    return carries(getattr(message, name), rest) if rest else True


async def send(caller: Caller, rpc: str, request: Any) -> Any:
    path, method = METHODS[rpc]
    if method.server_streaming:
        answers = caller.channel.unary_stream(f"/{path}", request_serializer=None)
        return await answers(request.SerializeToString(), timeout=CALL_S).read()
    call = caller.channel.unary_unary(f"/{path}", request_serializer=None)
    return await call(request.SerializeToString(), timeout=CALL_S)


@pytest.mark.parametrize("field", FIELDS)
async def test_value_out_of_bounds_is_refused_by_name(core: Core, bank: Caller, field: str) -> None:
    rpc, _, path = field.partition(".")
    card = core.unissued_card()
    request = carrier(rpc, path, card)

    async def refuse(value: Any) -> None:
        refusal = await refusal_of(send(bank, rpc, with_value(request, path, value)))
        assert (refusal.code.name, refusal.reason, refusal.field) == (
            "INVALID_ARGUMENT",
            "MALFORMED_FIELD",
            path,
        ), repr(value)
        if isinstance(value, str) and len(value) > 5 and value.isascii() and value != "IDENTITY.COUNTER":
            assert value.strip() not in refusal.text

    await asyncio.gather(*(refuse(value) for value in bad_values(field)))


@pytest.mark.parametrize("field", ABSENT)
async def test_absent_message_is_refused_by_name(core: Core, bank: Caller, field: str) -> None:
    rpc, _, path = field.partition(".")
    (request, *_) = valid_requests(rpc, core.unissued_card())
    if path == "credential" or field == "LookUpOperation.key":
        path = str(request.WhichOneof(path))
    refusal = await refusal_of(send(bank, rpc, changed(request, **{path: None})))
    assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", ABSENT[field])
    if path == "card":
        empty = changed(request, card=None)
        empty.card.SetInParent()
        assert (await refusal_of(send(bank, rpc, empty))).field == "card"


async def test_deposit_with_chip_data_is_refused_by_name(core: Core, bank: Caller) -> None:
    card = core.card()
    refusal = await refusal_of(bank.authorize(deposit(card, chip=card.sign(100))))
    assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", "chip")


async def test_identification_code_of_another_region_than_issued_is_refused(core: Core, bank: Caller) -> None:
    card = core.unissued_card()
    other = "360100" if card.facts.issuing_region != "360100" else "360200"
    refusal = await refusal_of(send(bank, "IssueCard", card_issue(card, issuing_region=other)))
    assert refusal.code.name == "INVALID_ARGUMENT"
    assert refusal.field in {"identification_code", "issuing_region"}


async def test_malformed_operations_of_a_frame_are_refused_singly(core: Core, bank: Caller) -> None:
    card = core.card()
    fields = [field.removeprefix("Authorize.") for field in FIELDS if field.startswith("Authorize.")]
    frame, expected = [], []
    for path in fields:
        for value in bad_values(f"Authorize.{path}"):
            frame += [with_value(carrier("Authorize", path, card), path, value), deposit(card, 1)]
            expected.append(path)
    (answer,) = await bank.frames(frame)
    refused, decided = answer.results[::2], answer.results[1::2]
    assert [(r.error.code, r.error.field) for r in refused] == [(3, path) for path in expected]
    assert {r.response.response_code for r in decided} == {"00"}


async def test_garbage_is_refused_and_the_service_goes_on(core: Core, bank: Caller) -> None:
    call = bank.channel.unary_unary("/onecard.v1.AuthorizationService/Authorize", request_serializer=None)
    for garbage in (b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xc3\x28"):
        refusal = await refusal_of(call(garbage, timeout=CALL_S))
        assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "MALFORMED_FIELD")
    assert (await bank.authorize(purchase(core.card()))).response_code == "00"
