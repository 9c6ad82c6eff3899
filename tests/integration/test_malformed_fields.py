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
    purchase,
    refusal_of,
    status_query,
    verification,
)
from google.protobuf.descriptor import Descriptor
from onecard.v1 import card_authentication_pb2, common_pb2, cryptography_pb2
from pin_pad import pin_change, pin_issue, pin_unblock, pin_verification, stateless_requests
from virtual_card import VirtualCard

from server.app import SERVICES

# Bad values of a field, by its name; the same name means the same everywhere but for what follows.
BAD_VALUES: dict[str, tuple[Any, ...]] = {
    "request_id": (
        "",
        "12345",
        "00000000-0000-0000-0000-000000000000",
        "0198c5a27d3e7b4a9c1d0242ac120002",
        "{0198c5a2-7d3e-7b4a-9c1d-0242ac120002}",
        "0198c5a2-7d3e-7b4a-9c1d-0242ac12000g",
        "0198c5a2-7d3e-7b4a-9c1d-0242ac120002\n",
        "０198c5a2-7d3e-7b4a-9c1d-0242ac120002",
    ),
    "catalogue_item": ("", "IDENTITY.COUNTER", "-item", "an item", "x" * 33, "item\n", "目录"),
    "catalogue_item_version": (0, 2**31, 2**32 - 1),
    "pan": (
        "",
        "6217",
        "621700001001234567",
        "6217000010012345678",
        "62170000100123456771",
        "６２１７000010012345677",
        " 6217000010012345677",
        "6217000010012345677\n",
        "6217-0000-1001-2345-677",
    ),
    "amount_minor": (0, -1, 10**12, -(2**63), 2**63 - 1),
    "currency_code": ("", "USD", "cny", "156", "CNY "),
    "terminal_id": ("T" * 17, "T 1", "终端", "T\n", "T\x00"),
    "merchant_id": ("M" * 16, "M 1", "商户", "M\x00"),
    "stan": (0, 1_000_000, 2**32 - 1),
    "terminal_time_unix_ms": (-1, 2**53 + 1, 2**63 - 1),
    "operation": (0, 3, 99, -1),
    "arqc": (b"", bytes(7), bytes(9)),
    "atc": (0, 65_536, 2**32 - 1),
    "unpredictable_number": (b"", bytes(3), bytes(5)),
    "tvr": (b"", bytes(4), bytes(6)),
    "aip": (b"", bytes(1), bytes(3)),
    "iad": (b"", bytes(6), bytes(33)),
    "transaction_date": ("", "26010", "2601011", "２６０１０１", "26-1-1", "+60101"),
    "transaction_type": (100, 2**32 - 1),
    "terminal_country_code": ("15", "1566", "CHN", "１５６"),
    "psn": ("0", "000", "0a", "０１"),
    "identification_code": ("", "6399", "g" * 32, "0" * 31, "0" * 33, "0" * 30 + "ﬀ", "０" * 32),
    "identity_number": (
        "",
        "36010219900307001",
        "3601021990030700144",
        "360102199003070013",
        "990102199003070014",
        "360102199002300014",
        "360102299003070014",
        "36010219900307001\x00",
    ),
    "name": ("", " ", "\u3000", "王" * 65, "王\x00", "王\u200b伟", "王\n伟"),
    "challenge_token": ("", "x" * 65, "to ken", "令牌"),
    "response": (b"", bytes(7), bytes(9)),
    "card_code": ("", "x" * 65, "co de", "卡码"),
    "kind": (0, 3, -1),
    "use": (0, 5, -1),
    "cipher": (0, 4, -1),
    "issuing_region": ("", "36010", "3601000", "440100", "36010a", "３６0100"),
    "card_number": ("", "36000001", "360000013", "3600000122", "36000001*", "36 000012"),
    "atr_historical_bytes": (b"", bytes(12), bytes(14)),
    "expires_on": ("", "2099123", "20990230", "20200101", "２0991231", "+2099123"),
    "transaction_amount_max_minor": (0, -1, 10**12),
    "day_amount_max_minor": (0, -1, 10**12),
    "version": (256, 2**32 - 1),
    "block": (b"", bytes(8), bytes(15), bytes(17)),
    "format": (0, 6, 99, -1),
    "target_format": (0, 6, 99, -1),
    "ksn": (bytes(1), bytes(9), bytes(11), bytes(13)),
    "data": (b"", bytes(253)),
    "arc": (b"", bytes(1), bytes(3)),
    "csu": (b"", bytes(3), bytes(5)),
    "proprietary": (bytes(9),),
    "session_key_method": (3, 99, -1),
    "message": (b"", bytes(8193)),
    "padding": (4, 99, -1),
    "mac_bytes": (1, 3, 33, 2**32 - 1),
    "mac": (b"", bytes(3), bytes(33)),
    "expiry": ("", "281", "28123", "28a2", "２812", "28-2"),
    "service_code": ("", "20", "2011", "2a1", "２01"),
    "card_verification_value": ("", "12", "1234", "12a", "１23"),
    "command": (0, 5, -1),
}
# Where a field differs from its namesakes.
MORE_BAD_VALUES: dict[str, tuple[Any, ...]] = {
    "Authorize.terminal_id": ("",),
    "IssueCard.pan": ("4012888888881881",),
    "IssueCard.identification_code": ("360100D15600000500BF7C7A48FB4966",),
    # Not bound to the card.
    "IssuePin.format": (cryptography_pb2.PIN_BLOCK_FORMAT_ISO_1,),
    "GenerateCardVerification.kind": (4,),
    "VerifyCardVerification.kind": (4,),
    "VerifyArqc.pan": ("62170000100",),
    "TranslatePin.pan": ("621700001001",),
    "GenerateIssuerScript.pan": ("621700001001",),
}
STATELESS = list(stateless_requests("6217000010012345677"))
LESS_BAD_VALUES: dict[str, tuple[Any, ...]] = {
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
    }
    if rpc == "VerifyArqc":
        by_method_1 = stateless_requests(card.pan)[rpc]
        by_method_2 = cryptography_pb2.ArpcMethod2(csu=bytes(4), proprietary=bytes(8))
        return [by_method_1, changed(by_method_1, method_1=None, method_2=by_method_2)]
    if rpc in STATELESS:
        return [stateless_requests(card.pan)[rpc]]
    return makers[rpc]()


def leaves(descriptor: Descriptor, prefix: str = "") -> Iterator[str]:
    for field in descriptor.fields:
        if field.message_type is None:
            yield prefix + field.name
        else:
            yield from leaves(field.message_type, f"{prefix}{field.name}.")


METHODS = {
    method.name: (f"{service}/{method.name}", method.input_type)
    for service, descriptor in SERVICES.items()
    for method in descriptor.methods
    # Their callers are operators, with tests of their own.
    if descriptor.name not in ("KeyService", "RuleService")
}
# Streams carry the unary requests, a challenge has no field to break, and keys are changed by operators, with tests of
# their own.
RPCS = sorted(
    rpc
    for rpc, (path, _) in METHODS.items()
    if not rpc.endswith("Stream") and rpc != "CreateChallenge" and ".KeyService/" not in path
)
FIELDS = [f"{rpc}.{path}" for rpc in RPCS for path in leaves(METHODS[rpc][1])]


def bad_values(field: str) -> list[Any]:
    values = BAD_VALUES[field.rsplit(".", 1)[1]] + MORE_BAD_VALUES.get(field, ())
    return [value for value in values if value not in LESS_BAD_VALUES.get(field, ())]


def with_value(message: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    if rest:
        return changed(message, **{name: with_value(getattr(message, name), rest, value)})
    copy = changed(message)
    copy.ClearField(name)
    setattr(copy, name, value)
    return copy


def carries(message: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.containing_oneof is not None and not message.HasField(name):
        return False
    return carries(getattr(message, name), rest) if rest else True


async def send(caller: Caller, rpc: str, request: Any) -> Any:
    path, _ = METHODS[rpc]
    call = caller.channel.unary_unary(f"/{path}", request_serializer=None)
    return await call(request.SerializeToString(), timeout=CALL_S)


@pytest.mark.parametrize("field", FIELDS)
async def test_value_out_of_bounds_is_refused_by_name(core: Core, bank: Caller, field: str) -> None:
    rpc, _, path = field.partition(".")
    card = core.unissued_card()
    (request,) = [r for r in valid_requests(rpc, card) if carries(r, path)][:1]

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
    if path == "credential":
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
            frame += [with_value(purchase(card), path, value), deposit(card, 1)]
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
