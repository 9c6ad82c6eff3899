"""Frames of cryptography: the answers of unary calls, in order, each operation by itself and under its own grant."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from core_under_test import CALL_S, EVERYTHING, GRANTS_IN_FORCE_S, Caller, Core, changed, refusal_of, without
from onecard.v1 import cryptography_pb2 as pb
from pin_pad import ISO_0, OTHER, RIGHT, SM4_0, WRONG, PinPad, key, pin_issue, pin_unblock

from crypto.cryptogram import generate_arqc
from crypto.diversification import derive_pboc_session_key, derive_udk
from server.edge.admission import RPC_POLICIES

PAN = "6217000010012345677"
OPERATIONS = pb.CryptographyOperation.DESCRIPTOR.oneofs_by_name["operation"].fields
CVV = {"key": key("cvk"), "kind": pb.CARD_VERIFICATION_KIND_CVV2, "pan": PAN, "expiry": "2812"}
FRAME_MAX = 256


@pytest.fixture
def pad(core: Core) -> PinPad:
    return PinPad(core.store)


async def frames(
    caller: Caller, *sent: Sequence[pb.CryptographyOperation]
) -> list[pb.CryptographyStreamResponse]:
    """Sends each sequence of operations as one frame of one stream."""

    async def messages() -> AsyncIterator[pb.CryptographyStreamRequest]:
        for frame_id, operations in enumerate(sent):
            yield pb.CryptographyStreamRequest(frame_id=frame_id, operations=operations)

    call = caller.cryptography.CryptographyStream(messages(), timeout=CALL_S)
    return [answer async for answer in call]


def operation(name: str, request: Any) -> pb.CryptographyOperation:
    return pb.CryptographyOperation(**{name: request})


def mac(number: int = 0) -> pb.CryptographyOperation:
    request = pb.GenerateMacRequest(key=key("mac-sm4"), message=b"message %d" % number)
    return operation("generate_mac", request)


def one_of_each(core: Core, pad: PinPad) -> dict[str, Any]:
    """A valid request for each operation, on cards of their own; each answers the same when asked again."""
    imk = core.store.lend(core.store.active("imk-ac-tdes"))
    session_key = derive_pboc_session_key(derive_udk(imk, pan=PAN, psn="00"), atc=7)
    return {
        "verify_arqc": pb.VerifyArqcRequest(
            key=key("imk-ac-tdes"),
            pan=PAN,
            atc=7,
            data=b"data",
            arqc=generate_arqc(session_key, b"data"),
            method_1=pb.ArpcMethod1(arc=b"00"),
        ),
        "verify_pin": pad.verification(core.card()),
        # To a format without random fill: otherwise no two answers are the same.
        "translate_pin": pb.TranslatePinRequest(
            pan=PAN,
            source=pad.pin(RIGHT, PAN, layout=ISO_0),
            target_key=key("zpk-sm4"),
            target_format=SM4_0,
        ),
        "generate_mac": mac().generate_mac,
        "verify_mac": pb.VerifyMacRequest(key=key("mac-sm4"), message=b"message", mac=bytes(8)),
        "generate_card_verification": pb.GenerateCardVerificationRequest(**CVV),
        "verify_card_verification": pb.VerifyCardVerificationRequest(**CVV, card_verification_value="123"),
        "generate_issuer_script": pb.GenerateIssuerScriptRequest(
            integrity_key=key("imk-smi-aes"),
            pan=PAN,
            atc=7,
            arqc=bytes(8),
            command=pb.ISSUER_COMMAND_APPLICATION_BLOCK,
        ),
        "change_pin": pad.change(core.card()),
        "unblock_pin": pin_unblock(core.card()),
        "issue_pin": pin_issue(core.card()),
    }


def rpc_of(name: str) -> str:
    return name.title().replace("_", "")


def test_every_unary_rpc_is_an_operation_of_frames() -> None:
    unary = {path.rsplit("/", 1)[1] for path in RPC_POLICIES if "/onecard.v1.CryptographyService/" in path}
    assert {rpc_of(field.name) for field in OPERATIONS} == unary - {"CryptographyStream"}


async def test_results_are_in_order_and_those_of_the_unary_calls(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    requests = one_of_each(core, pad)
    assert set(requests) == {field.name for field in OPERATIONS}
    unary = {
        name: await getattr(bank.cryptography, rpc_of(name))(request, timeout=CALL_S)
        for name, request in requests.items()
    }
    for names in (list(requests), list(reversed(requests)), [*requests] * 5):
        (answer,) = await frames(bank, [operation(name, requests[name]) for name in names])
        assert [result.WhichOneof("outcome") for result in answer.results] == names
        for name, result in zip(names, answer.results, strict=True):
            assert getattr(result, name) == unary[name], name


async def test_refused_operation_leaves_the_others_alone(core: Core, bank: Caller, pad: PinPad) -> None:
    card = core.card()
    pin = pad.pin(RIGHT, PAN)
    translation = pb.TranslatePinRequest(pan=PAN, source=pin, target_key=key("zpk-tdes"), target_format=ISO_0)
    good = mac()
    refused = {
        "MALFORMED_FIELD message": operation("generate_mac", pb.GenerateMacRequest(key=key("mac-sm4"))),
        "KEY_USAGE key": operation("generate_mac", changed(good.generate_mac, key=key("cvk"))),
        "KEY_UNKNOWN key": operation("generate_mac", changed(good.generate_mac, key=key("none", 3))),
        "PIN_FORMAT_WEAKER target_format": operation("translate_pin", translation),
        "PIN_BLOCK_INVALID source": operation(
            "translate_pin",
            changed(
                translation,
                source=changed(pin, block=bytes(16)),
                target_key=key("zpk-sm4"),
                target_format=SM4_0,
            ),
        ),
        "MALFORMED_FIELD operation": pb.CryptographyOperation(),
        "MALFORMED_FIELD pan": operation("verify_pin", changed(pad.verification(card), pan="1")),
        "KEY_USAGE pin.key": operation(
            "verify_pin", pad.verification(core.card(), pin=changed(pin, key=key("cvk")))
        ),
        "CATALOGUE_ITEM_UNKNOWN catalogue_item": operation(
            "unblock_pin", pin_unblock(card, catalogue_item="no.such.item")
        ),
    }
    neighbours = [mac(1), operation("issue_pin", pin_issue(card)), mac(2)]
    sent = [one for entry in refused.values() for one in (*neighbours, entry)]
    (answer,) = await frames(bank, sent)
    told = [f"{r.error.reason} {r.error.field}" for r in answer.results if r.HasField("error")]
    assert told == list(refused)
    for start in range(0, len(sent), 4):
        first, issued, second = answer.results[start : start + 3]
        assert (len(first.generate_mac.mac), len(second.generate_mac.mac)) == (8, 8)
        assert first.generate_mac.mac != second.generate_mac.mac
        assert issued.issue_pin.response_code == "00"


@pytest.mark.parametrize("name", [field.name for field in OPERATIONS])
async def test_operation_needs_its_own_grant_in_a_frame_too(core: Core, pad: PinPad, name: str) -> None:
    requests = one_of_each(core, pad)
    caller = core.caller(without(name))
    (answer,) = await frames(caller, [operation(each, request) for each, request in requests.items()])
    for each, result in zip(requests, answer.results, strict=True):
        if each == name:
            assert (result.error.code, result.error.reason) == (7, "RPC_CLASS_NOT_GRANTED")
        else:
            assert result.WhichOneof("outcome") == each


async def test_stream_needs_its_own_grant(core: Core) -> None:
    for participant_id, code in (
        (without("cryptography_stream"), "PERMISSION_DENIED"),
        ("no-grants", "PERMISSION_DENIED"),
        ("stranger-01", "UNAUTHENTICATED"),
    ):
        call = core.caller(participant_id).cryptography.CryptographyStream(timeout=CALL_S)
        assert (await call.code()).name == code


async def test_key_that_is_not_granted_is_refused_in_a_frame_by_itself(core: Core) -> None:
    await core.add_participant("stream-keyed-01", EVERYTHING | {"key": ["mac-sm4"]})
    await asyncio.sleep(GRANTS_IN_FORCE_S)
    foreign = operation("generate_card_verification", pb.GenerateCardVerificationRequest(**CVV))
    unknown = changed(foreign.generate_card_verification, key=key("no-such-key"))
    sent = [mac(), foreign, operation("generate_card_verification", unknown), mac()]
    (answer,) = await frames(core.caller("stream-keyed-01"), sent)
    kinds = [result.WhichOneof("outcome") for result in answer.results]
    assert kinds == ["generate_mac", "error", "error", "generate_mac"]
    # Nothing tells a key of others from none.
    assert answer.results[1] == answer.results[2]
    assert answer.results[1].error.reason == "KEY_NOT_GRANTED"


async def test_open_stream_does_not_outlive_the_grants(core: Core) -> None:
    await core.add_participant("stream-short-01", EVERYTHING)
    await asyncio.sleep(GRANTS_IN_FORCE_S)
    call = core.caller("stream-short-01").cryptography.CryptographyStream(timeout=CALL_S)

    async def one_frame() -> str:
        await call.write(pb.CryptographyStreamRequest(operations=[mac()]))
        answer = await call.read()
        if answer is grpc.aio.EOF:
            return (await call.code()).name
        (result,) = answer.results
        return str(result.error.reason or result.WhichOneof("outcome"))

    async def without_grants(kind: str) -> str:
        await core.database.execute(
            "DELETE FROM participant_grants WHERE participant_id = 'stream-short-01' AND grant_kind = $1",
            kind,
        )
        await asyncio.sleep(GRANTS_IN_FORCE_S)
        try:
            return await one_frame()
        except grpc.aio.AioRpcError as error:
            return error.code().name

    assert await one_frame() == "generate_mac"
    assert await without_grants("key") == "KEY_NOT_GRANTED"
    assert await without_grants("rpc_class") == "PERMISSION_DENIED"


@pytest.mark.parametrize("size", [0, FRAME_MAX + 1])
async def test_frame_of_wrong_size_is_refused_by_name(
    core: Core, bank: Caller, pad: PinPad, size: int
) -> None:
    request = pin_issue(core.card())
    refusal = await refusal_of(frames(bank, [operation("issue_pin", request)] * size))
    assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", "operations")
    assert await core.stored(request.request_id) == 0


async def test_largest_frame_is_answered_in_whole(bank: Caller) -> None:
    (answer,) = await frames(bank, [mac(number) for number in range(FRAME_MAX)])
    assert len({result.generate_mac.mac for result in answer.results}) == FRAME_MAX


async def test_frames_of_a_stream_are_answered_in_order(core: Core, bank: Caller, pad: PinPad) -> None:
    sent = [
        [mac(number)] * (1 + number % 3)
        if number % 4
        else [operation("verify_pin", pad.verification(core.card()))]
        for number in range(24)
    ]
    answers = await frames(bank, *sent)
    assert [answer.frame_id for answer in answers] == list(range(24))
    assert [len(answer.results) for answer in answers] == [len(frame) for frame in sent]
    for frame, answer in zip(sent, answers, strict=True):
        kind = frame[0].WhichOneof("operation")
        assert {result.WhichOneof("outcome") for result in answer.results} == {kind}


async def test_operations_on_one_card_in_one_frame_see_each_other(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = core.card()
    issue = pin_issue(card)
    issued = await bank.cryptography.IssuePin(issue, timeout=CALL_S)
    mailed = pad.opened(issued.pin_block, card.pan)
    sent = [
        operation("verify_pin", pad.verification(card, WRONG)),
        operation("verify_pin", pad.verification(card, WRONG)),
        operation("change_pin", pad.change(card, mailed, OTHER)),
        operation("verify_pin", pad.verification(card, mailed)),
        operation("verify_pin", pad.verification(card, OTHER)),
        operation("change_pin", pad.change(card, WRONG, RIGHT)),
        operation("verify_pin", pad.verification(card, WRONG)),
        operation("verify_pin", pad.verification(card, WRONG)),
        operation("verify_pin", pad.verification(card, OTHER)),
        operation("unblock_pin", pin_unblock(card)),
        operation("verify_pin", pad.verification(card, OTHER)),
    ]
    (answer,) = await frames(bank, sent)
    codes = [getattr(r, r.WhichOneof("outcome")).response_code for r in answer.results]
    assert codes == ["55", "55", "00", "55", "00", "55", "55", "55", "75", "00", "00"]
    # The same frame again is the same answers: nothing is compared twice.
    (again,) = await frames(bank, sent)
    assert again.results == answer.results
