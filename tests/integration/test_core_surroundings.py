"""What stands around the calls: health, reflection, metrics, lines; and no personal data in any of it."""

import asyncio
import json
import re
import urllib.request
from pathlib import Path

import grpc
import known_secrets
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
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from integration.running_instance import Instance
from onecard.v1 import card_authentication_pb2, common_pb2, cryptography_pb2, identity_pb2
from pin_pad import (
    ISO_1,
    PINS,
    RIGHT,
    THIRD,
    WRONG,
    PinPad,
    key,
    pin_issue,
    pin_unblock,
    stateless_requests,
)
from virtual_card import VirtualCard

from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import EncryptedPin
from crypto.pin_block import PinBlockFormat
from crypto.pin_layout import PIN_LENGTH_MAX
from server.grpc_server import SERVICES

FLUSHED_S = 0.5


def metrics(core: Core) -> str:
    address = f"http://127.0.0.1:{core.facts['metrics_port']}/metrics"
    with urllib.request.urlopen(address, timeout=5) as answer:
        return str(answer.read().decode())


def counted(page: str, name: str, **labels: str) -> float:
    for line in page.splitlines():
        if line.startswith(name + "{") and all(
            f'{label}="{value}"' in line for label, value in labels.items()
        ):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


async def test_health_is_serving_for_any_certificate_of_the_authority(core: Core) -> None:
    for participant_id in ("bank-01", "no-grants", "stranger-01"):
        stub = health_pb2_grpc.HealthStub(core.caller(participant_id).channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_and_describes_every_service(bank: Caller) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(bank.channel)

    async def ask(**question: str) -> reflection_pb2.ServerReflectionResponse:
        request = reflection_pb2.ServerReflectionRequest(**question)
        call = stub.ServerReflectionInfo(iter([request]), timeout=CALL_S)
        (answer,) = [answer async for answer in call]
        return answer

    listed = {service.name for service in (await ask(list_services="")).list_services_response.service}
    assert set(SERVICES) | {"grpc.health.v1.Health"} <= listed
    for name in SERVICES:
        described = await ask(file_containing_symbol=name)
        assert described.file_descriptor_response.file_descriptor_proto


async def test_metrics_count_calls_decisions_refusals_and_batches(core: Core, bank: Caller) -> None:
    before = metrics(core)
    card = core.card()
    await bank.authorize(purchase(card))
    await bank.authorize(purchase(core.unissued_card()))
    await refusal_of(bank.authorize(purchase(card, currency_code="USD")))
    await bank.frames([deposit(card), deposit(card)])
    await asyncio.sleep(0.05)
    after = metrics(core)
    method = "/onecard.v1.AuthorizationService/Authorize"
    for name, labels, expected in (
        ("onecard_rpc_total", {"method": method, "status": "OK"}, 2),
        ("onecard_rpc_total", {"method": method, "status": "INVALID_ARGUMENT"}, 1),
        ("onecard_rpc_total", {"method": method + "Stream", "status": "OK"}, 1),
        ("onecard_rpc_seconds_count", {"method": method}, 3),
        ("onecard_decisions_total", {"operation": "purchase", "response_code": "00"}, 1),
        ("onecard_decisions_total", {"operation": "purchase", "response_code": "14"}, 1),
        ("onecard_decisions_total", {"operation": "deposit", "response_code": "00"}, 2),
        ("onecard_refusals_total", {"reason": "MALFORMED_FIELD"}, 1),
    ):
        assert counted(after, name, **labels) - counted(before, name, **labels) == expected, (name, labels)
    for name in ("onecard_batch_operations_count", "onecard_batch_seconds_count", "onecard_queue_operations"):
        assert re.search(rf"^{name} ", after, re.MULTILINE)


async def test_line_names_caller_method_status_and_masked_subject(
    core: Core, core_instance: Instance, bank: Caller
) -> None:
    card = core.card()
    await bank.authorize(purchase(card))
    await refusal_of(core.caller("no-grants").authorize(purchase(card)))
    await asyncio.sleep(FLUSHED_S)
    lines = [json.loads(line) for line in core_instance.errors().splitlines() if line.startswith("{")]
    masked = f"{card.pan[:4]}****{card.pan[-4:]}"
    mine = [line for line in lines if line.get("subject") == masked]
    told = {(line["method"].rsplit("/", 1)[1], line["caller"], line["status"]) for line in mine}
    assert ("Authorize", "bank-01", "OK") in told
    # A refusal is evidence: it names who was refused.
    assert ("Authorize", "no-grants", "PERMISSION_DENIED") in told


def holds(text: str, secret: str) -> bool:
    """Whether a secret stands in a text; a PIN only where it stands alone, because tables are full of numbers."""
    if not secret.isdigit() or len(secret) >= PIN_LENGTH_MAX:
        return secret in text
    return re.search(rf"(?<![0-9a-f.]){secret}(?![0-9a-f])", text) is not None


async def use_pins(core: Core, caller: Caller, card: VirtualCard) -> tuple[list[str], list[str]]:
    """Every RPC of cryptography on a card; gives the errors told, and the PINs and references that were worked on."""
    pad, stub, told = PinPad(core.store), caller.cryptography, []
    issued = await stub.IssuePin(pin_issue(card), timeout=CALL_S)
    mailed = pad.opened(issued.pin_block, card.pan)
    changing = pad.change(card, mailed, THIRD)
    requests = stateless_requests(card.pan)
    script = requests["GenerateIssuerScript"]
    calls = [
        (stub.ChangePin, changing),
        (stub.ChangePin, changed(changing, new_pin=pad.pin(RIGHT, card.pan))),
        (stub.VerifyPin, pad.verification(card, THIRD)),
        (stub.VerifyPin, pad.verification(card, WRONG)),
        (stub.VerifyPin, pad.verification(card, THIRD, pin=pad.pin(THIRD, card.pan, layout=ISO_1))),
        (stub.VerifyPin, changed(pad.verification(card, THIRD), pan=card.pan + "x")),
        (stub.VerifyPin, pad.verification(card, pin=changed(pad.pin(THIRD, card.pan), key=key("cvk")))),
        (stub.UnblockPin, pin_unblock(card)),
        (stub.TranslatePin, changed(requests["TranslatePin"], source=pad.pin(THIRD, card.pan))),
        (stub.TranslatePin, changed(requests["TranslatePin"], target_format=ISO_1)),
        (
            stub.GenerateIssuerScript,
            changed(script, new_pin=pad.pin(THIRD, card.pan), current_pin=pad.pin(RIGHT, card.pan)),
        ),
        *((getattr(stub, rpc), request) for rpc, request in requests.items()),
    ]
    for rpc, request in calls:
        try:
            await rpc(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            told.append(str(error))
    frame = cryptography_pb2.CryptographyStreamRequest(
        operations=[
            cryptography_pb2.CryptographyOperation(verify_pin=pad.verification(card, THIRD)),
            cryptography_pb2.CryptographyOperation(translate_pin=requests["TranslatePin"]),
        ]
    )
    told += [str(answer) async for answer in stub.CryptographyStream(iter([frame]), timeout=CALL_S)]
    presented = [
        EncryptedPin(
            key=core.store.active("zpk-sm4"),
            ksn=b"",
            format=PinBlockFormat.SM4_0,
            block=pad.pin(digits, card.pan).block,
            pan=card.pan,
        )
        for digits in (*PINS, mailed)
    ]
    references = [
        # In hexadecimal, as a table shows it: the first PIN has six digits, which stand anywhere by chance.
        reference.encode().hex()
        for of_pin in DataPlane(core.store).pin_references(presented)
        for reference in of_pin.by_version.values()
    ]
    return told, [*PINS, *references]


async def test_personal_data_is_nowhere_in_clear(core: Core, core_instance: Instance, bank: Caller) -> None:
    card, known = core.unissued_card(), core.card()
    name = identity_pb2.NameAndNumber(name="司马相如", identity_number=card.identity_number)
    chip = card.sign(0)
    calls = [
        (bank.cards.IssueCard, card_issue(card, name="司马相如")),
        (bank.cards.IssueCard, card_issue(card, name="司马相如")),
        (bank.cards.IssueCard, card_issue(card, card_number=card.facts.card_number[:-1] + "?")),
        (bank.identity.VerifyIdentity, None),
        (bank.cards.GetCardStatus, status_query(card)),
        (bank.authorization.Authorize, purchase(card)),
        (bank.authorization.Authorize, purchase(card, pan=card.pan + "x")),
        (bank.authorization.Authorize, purchase(card, merchant_id=card.identity_number)),
        (core.caller("no-grants").authorization.Authorize, purchase(card)),
        (core.caller("stranger-01").authorization.Authorize, purchase(card)),
        (
            bank.authentication.AuthenticateCard,
            authentication(cryptogram=card_authentication_pb2.CardCryptogram(pan=card.pan, chip=chip)),
        ),
        (bank.identity.IssueCardCode, code_issue(card)),
        (bank.cards.ReportLoss, loss_report(card)),
        (bank.cards.ReportLoss, loss_report(card)),
        (bank.cards.LiftLoss, loss_lift(card)),
        (
            bank.cards.GetCardStatus,
            status_query(card, card=common_pb2.CardReference(identity_number=card.identity_number)),
        ),
        (
            bank.cards.GetCardStatus,
            status_query(card, card=common_pb2.CardReference(identity_number=card.identity_number + " ")),
        ),
    ]
    told = []
    for rpc, request in calls:
        try:
            if request is None:
                await bank.verify(name_and_number=name)
                await bank.verify(name_and_number=name_and_number(known))
                await bank.verify(chip=card.answer(await bank.challenge()))
            else:
                await rpc(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            told.append(str(error))
    code = await bank.card_code(card)
    await bank.verify(card_code=code)
    reused = changed(card_issue(card), request_id=calls[0][1].request_id, name="王莽")
    told.append((await refusal_of(bank.cards.IssueCard(reused, timeout=CALL_S))).text)
    # Of a card in use, because a lost one's PIN is not looked at.
    pin_errors, pins = await use_pins(core, bank, known)
    told += pin_errors
    await asyncio.sleep(FLUSHED_S)

    facts = card.facts
    secrets = [
        "司马相如",
        known.name,
        *(facts.pan, facts.identity_number, facts.card_number, facts.identification_code),
        *(known.pan, known.identity_number),
        *pins,
    ]
    places = {
        "errors to callers": "\n".join(told),
        "lines": core_instance.errors() + core_instance.output(),
        "metrics": metrics(core),
        "postgres log": "".join(
            path.read_text(errors="replace")
            for path in Path(core.data_dir).glob("postgres/log/*")  # noqa: ASYNC240 - a small folder
        ),
        "run file": (core.data_dir / "onecard.json").read_text(),
        "pg_stat_statements": "\n".join(
            row[0] or "" for row in await core.database.fetch("SELECT query FROM pg_stat_statements")
        ),
    }
    names = await core.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for (table,) in names:
        rows = await core.database.fetch(f"SELECT t::text FROM {table} AS t")
        places[f"table {table}"] = "\n".join(row[0] for row in rows)
    # A code is no personal data, and its stored answer must hold it; but whoever reads a line could use it.
    assert code not in places["lines"]
    assert places["lines"]
    assert len(places) > 10
    for place, text in places.items():
        for secret in secrets:
            assert not holds(text, secret), f"{place} holds {secret[:2]}…"
            assert secret.encode().hex() not in text, f"{place} holds {secret[:2]}… in hex"
    tables = {place: text for place, text in places.items() if place.startswith("table ")}
    others = {place: text.encode() for place, text in places.items() if place not in tables}
    assert not known_secrets.leaks(core.data_dir, others)
    assert not known_secrets.table_leaks(core.data_dir, tables)
