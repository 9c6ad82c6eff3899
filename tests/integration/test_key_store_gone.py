"""A key store that does not answer: cards and PINs wait, everything else in the same batch goes on.

One worker inside the test, on the database of the core: the real gate, engine and capabilities over a store that can
be taken away.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio
from core_under_test import (
    CALL_S,
    Core,
    Refusal,
    authentication,
    deposit,
    distant_cutoff,
    loss_report,
    name_and_number,
    purchase,
    refusal_of,
    verification,
)
from entry_requests import by_code, by_token, payment_code, register, with_mac
from google.protobuf.message import Message
from onecard.v1 import (
    authorization_pb2,
    authorization_pb2_grpc,
    card_authentication_pb2,
    card_authentication_pb2_grpc,
    cards_pb2_grpc,
    cryptography_pb2,
    cryptography_pb2_grpc,
    identity_pb2_grpc,
)
from pin_pad import RIGHT, WRONG, PinPad, pin_issue, pin_unblock, stateless_requests

from crypto.errors import KeyStoreUnavailableError
from crypto.key_store import KeyStore
from server.app import build_engine
from server.catalogue.service import Catalogue
from server.composition import add_servicers
from server.edge.access_line import AccessLines
from server.edge.admission import Admission
from server.edge.caller import Participant, ParticipantRegistry
from server.edge.gate import Gate
from server.key_calls import KeyCalls
from server.rulebook.book import RuleBook
from server.settings import Settings

# What asks a backend; the rest is known without it.
ASKED = (
    "open_key",
    "encrypt_under_master",
    "decrypt_under_master",
    "diversify_udks",
    "verify_arqcs",
    "verify_internal_authentications",
)
CALLER = Participant("bank-01", "bank", 1, frozenset("*"), ("",), frozenset("*"), frozenset("*"))


class StoreOnALine:
    """A key store behind a line that can be cut, and held up."""

    def __init__(self, store: KeyStore, *, is_blocking: bool) -> None:
        self._store = store
        self.is_blocking = is_blocking
        self.is_cut = False
        self.passing = threading.Event()
        self.passing.set()
        self.asked = threading.Event()
        self.threads: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        if name not in ASKED:
            return getattr(self._store, name)

        def ask(*arguments: Any, **options: Any) -> Any:
            self.threads.add(threading.get_ident())
            self.asked.set()
            assert self.passing.wait(10)
            if self.is_cut:
                raise KeyStoreUnavailableError("cut")
            return getattr(self._store, name)(*arguments, **options)

        return ask


class OneParticipant:
    """A registry of one, who calls without a certificate."""

    def identify(self, _context: Any) -> Participant:
        return CALLER

    def renew(self, participant: Participant) -> Participant:
        return participant


class Worker:
    """The worker's stubs and its store."""

    def __init__(self, channel: grpc.aio.Channel, line: StoreOnALine) -> None:
        self.line = line
        self.authorization = authorization_pb2_grpc.AuthorizationServiceStub(channel)
        self.authentication = card_authentication_pb2_grpc.CardAuthenticationServiceStub(channel)
        self.cards = cards_pb2_grpc.CardServiceStub(channel)
        self.identity = identity_pb2_grpc.IdentityServiceStub(channel)
        self.cryptography = cryptography_pb2_grpc.CryptographyServiceStub(channel)

    async def money(self, *operations: Message) -> list[Any]:
        """Response codes or reasons of one frame: one batch."""
        frame = authorization_pb2.AuthorizeStreamRequest(operations=operations)
        call = self.authorization.AuthorizeStream(iter([frame]), timeout=CALL_S)
        (answer,) = [response async for response in call]
        return [result.error.reason or result.response.response_code for result in answer.results]

    async def cryptographic(self, **operations: Message) -> dict[str, str]:
        """Outcomes of one frame by operation."""
        frame = cryptography_pb2.CryptographyStreamRequest(
            operations=[
                cryptography_pb2.CryptographyOperation(**{name: request})
                for name, request in operations.items()
            ]
        )
        call = self.cryptography.CryptographyStream(iter([frame]), timeout=CALL_S)
        (answer,) = [response async for response in call]
        return {
            name: result.error.reason or result.WhichOneof("outcome")
            for name, result in zip(operations, answer.results, strict=True)
        }


@pytest_asyncio.fixture(params=[False, True], ids=["at once", "blocking"])
async def worker(core: Core, request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    settings = Settings(
        socket_dir=Path(core.facts["socket_dir"]), business_day_cutoff=distant_cutoff(), lanes=1, shards=1
    )
    line = StoreOnALine(core.store, is_blocking=request.param)
    catalogue, keys = Catalogue(core.database), KeyCalls(cast(KeyStore, line))
    await catalogue.refresh()
    rules = RuleBook()
    engine = build_engine(settings, worker_index=9, keys_may_block=request.param, rules=rules)
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    registry = cast(ParticipantRegistry, OneParticipant())
    gate = Gate(server, registry, Admission(in_flight_max=100), AccessLines(enabled=False))
    add_servicers(
        gate,
        settings,
        engine=engine,
        catalogue=catalogue,
        keys=keys,
        rules=rules,
        pool=core.database,
    )
    engine.start()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Worker(channel, line)
    line.passing.set()
    await server.stop(1)
    await engine.drain()
    keys.close()


def is_store_unavailable(refusal: Refusal) -> bool:
    assert refusal.retry_delay_ms > 0
    return (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "KEY_STORE_UNAVAILABLE")


async def test_what_needs_no_key_goes_on_beside_what_does(core: Core, worker: Worker) -> None:
    bought, paid_in, stranger = core.card(), core.card(), core.unissued_card()
    operations = [purchase(bought), deposit(paid_in), purchase(stranger), deposit(bought)]
    worker.line.is_cut = True
    unavailable = "KEY_STORE_UNAVAILABLE"
    assert await worker.money(*operations) == [unavailable, "00", "14", "00"]
    answer = await worker.identity.VerifyIdentity(
        verification(name_and_number=name_and_number(bought)), timeout=CALL_S
    )
    assert answer.verified
    assert await core.stored(operations[0].request_id) == 0
    # The same call may be sent again: nothing of it was used up.
    worker.line.is_cut = False
    assert await worker.money(*operations) == ["00", "00", "14", "00"]


async def test_cards_are_not_taken_for_genuine(core: Core, worker: Worker) -> None:
    card = core.card()
    challenge = await worker.authentication.CreateChallenge(
        card_authentication_pb2.CreateChallengeRequest(), timeout=CALL_S
    )
    chip = card.answer(challenge)
    cryptogram = card_authentication_pb2.CardCryptogram(pan=card.pan, chip=card.sign(0))
    calls = [
        (worker.authorization.Authorize, purchase(card)),
        (worker.identity.VerifyIdentity, verification(chip=chip)),
        (worker.authentication.AuthenticateCard, authentication(cryptogram=cryptogram)),
    ]
    worker.line.is_cut = True
    for call, request in calls:
        assert is_store_unavailable(await refusal_of(call(request, timeout=CALL_S)))
    worker.line.is_cut = False
    # Neither the counter of the chip nor the challenge was used up.
    assert (await worker.authorization.Authorize(calls[0][1], timeout=CALL_S)).response_code == "00"
    assert (await worker.identity.VerifyIdentity(calls[1][1], timeout=CALL_S)).verified


async def test_pins_wait_and_no_try_is_counted(core: Core, worker: Worker) -> None:
    pad, card = PinPad(core.store), core.card()
    stub = worker.cryptography
    issued = await stub.IssuePin(pin_issue(card), timeout=CALL_S)
    mailed = pad.opened(issued.pin_block, card.pan)
    worker.line.is_cut = True
    right, wrong = pad.verification(card, mailed), pad.verification(card, WRONG)
    calls = [
        (stub.VerifyPin, right),
        (stub.VerifyPin, wrong),
        (stub.ChangePin, pad.change(card, mailed, RIGHT)),
        (stub.IssuePin, pin_issue(card)),
    ]
    for call, request in calls:
        assert is_store_unavailable(await refusal_of(call(request, timeout=CALL_S)))
        assert await core.stored(request.request_id) == 0
    tries = "SELECT pin_tries FROM card_states WHERE card_id = $1"
    assert await core.database.fetchval(tries, await core.card_id(card)) == 0
    worker.line.is_cut = False
    assert (await stub.VerifyPin(wrong, timeout=CALL_S)).tries_left == 2
    assert (await stub.VerifyPin(right, timeout=CALL_S)).response_code == "00"


async def test_money_by_pin_and_code_over_the_message_waits_and_by_card_code_and_token_goes_on(
    core: Core, worker: Worker
) -> None:
    pad, card, bank = PinPad(core.store), core.card(), core.caller()
    issued = await worker.cryptography.IssuePin(pin_issue(card), timeout=CALL_S)
    mailed = pad.opened(issued.pin_block, card.pan)
    code, token = await payment_code(bank, card), await register(bank, card)
    operations = [
        purchase(card, pin=pad.pin(WRONG, card.pan)),
        purchase(card, pin=pad.pin(mailed, card.pan)),
        with_mac(core.store, deposit(card)),
        with_mac(core.store, deposit(card)),
        by_code(code),
        by_token(token),
        deposit(card),
    ]
    operations[3].mac.mac = bytes(8)
    worker.line.is_cut = True
    unavailable = "KEY_STORE_UNAVAILABLE"
    assert await worker.money(*operations) == [unavailable] * 4 + ["00"] * 3
    for operation in operations[:4]:
        assert await core.stored(operation.request_id) == 0
    tries = "SELECT pin_tries FROM card_states WHERE card_id = $1"
    assert await core.database.fetchval(tries, await core.card_id(card)) == 0
    worker.line.is_cut = False
    # The same calls again: what waited is decided, what went on is told again.
    assert await worker.money(*operations) == ["55", "00", "00", "A0", "00", "00", "00"]
    assert await core.database.fetchval(tries, await core.card_id(card)) == 0


async def test_calls_that_keep_nothing_are_unavailable(core: Core, worker: Worker) -> None:
    requests = stateless_requests(core.unissued_card().pan)
    worker.line.is_cut = True
    for rpc, request in requests.items():
        call = getattr(worker.cryptography, rpc)
        assert is_store_unavailable(await refusal_of(call(request, timeout=CALL_S))), rpc


async def test_frame_without_the_store_still_does_what_needs_no_key(core: Core, worker: Worker) -> None:
    pad, card = PinPad(core.store), core.card()
    await worker.cryptography.IssuePin(pin_issue(card), timeout=CALL_S)
    requests = stateless_requests(card.pan)
    worker.line.is_cut = True
    outcomes = await worker.cryptographic(
        generate_mac=requests["GenerateMac"],
        verify_pin=pad.verification(card),
        unblock_pin=pin_unblock(card),
        verify_arqc=requests["VerifyArqc"],
        issue_pin=pin_issue(card),
    )
    unavailable = "KEY_STORE_UNAVAILABLE"
    assert outcomes == {
        "generate_mac": unavailable,
        "verify_pin": unavailable,
        "unblock_pin": "unblock_pin",
        "verify_arqc": unavailable,
        "issue_pin": unavailable,
    }


@pytest.mark.parametrize("worker", [True], indirect=True, ids=["blocking"])
async def test_slow_store_does_not_stop_the_worker(core: Core, worker: Worker) -> None:
    worker.line.threads.clear()
    worker.line.asked.clear()
    worker.line.passing.clear()
    slow = asyncio.ensure_future(worker.authorization.Authorize(purchase(core.card()), timeout=CALL_S))
    await asyncio.to_thread(worker.line.asked.wait, 10)
    for _ in range(3):
        answer = await worker.authentication.CreateChallenge(
            card_authentication_pb2.CreateChallengeRequest(), timeout=CALL_S
        )
        assert answer.challenge_token
    malformed = await refusal_of(
        worker.authorization.Authorize(purchase(core.card(), currency_code="USD"), timeout=CALL_S)
    )
    assert malformed.field == "currency_code"
    # The one lane is free: deposits, and above all loss reports, do not wait for the key store.
    paid = await worker.authorization.Authorize(deposit(core.card()), timeout=CALL_S)
    assert paid.response_code == "00"
    lost = core.card()
    await worker.cards.ReportLoss(loss_report(lost), timeout=CALL_S)
    assert not slow.done()
    worker.line.passing.set()
    assert (await slow).response_code == "00"
    assert worker.line.threads
    assert threading.get_ident() not in worker.line.threads
