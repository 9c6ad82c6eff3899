"""The channel against a real server with real TLS that answers as the test says: what is sent again, and what never."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import authorization_pb2_grpc, cards_pb2, cards_pb2_grpc, common_pb2

from clients import errors as client_errors
from clients.channel import ClientCredentials, OneCardChannel, new_request_id
from clients.errors import OneCardCallError
from clients.retry import RetryPolicy
from clients.service_client import OneCardClient
from server import errors
from server.development_ca import ensure_server_certificate, issue_participant_certificate
from server.edge.status import to_grpc_status

QUICK = RetryPolicy(attempts_max=4, overall_deadline_s=5.0, backoff_first_s=0.005, backoff_max_s=0.02)
HANG = "hang"
PLAIN_EXHAUSTED = "exhausted without details"


class ScriptedServer(authorization_pb2_grpc.AuthorizationServiceServicer, cards_pb2_grpc.CardServiceServicer):
    """Answers each call with the next entry of ``script``, and with success when there is none left."""

    def __init__(self) -> None:
        self.script: list[errors.OneCardError | str] = []
        self.requests: list[bytes] = []
        self.moments_s: list[float] = []
        self.peers: list[str] = []
        self.gate: asyncio.Barrier | None = None

    async def Authorize(self, request: pb.AuthorizeRequest, context: Any) -> pb.AuthorizeResponse:
        await self._act(request, context)
        return pb.AuthorizeResponse(response_code="00", rrn="000000000001")

    async def GetCardStatus(
        self, request: cards_pb2.GetCardStatusRequest, context: Any
    ) -> cards_pb2.GetCardStatusResponse:
        await self._act(request, context)
        return cards_pb2.GetCardStatusResponse(status=common_pb2.CARD_STATUS_NORMAL)

    async def _act(self, request: Any, context: Any) -> None:
        self.requests.append(request.SerializeToString())
        self.moments_s.append(time.monotonic())
        self.peers.append(context.peer())
        if self.gate is not None:
            await self.gate.wait()
        step = self.script.pop(0) if self.script else None
        if step == HANG:
            await asyncio.sleep(30)
        elif step == PLAIN_EXHAUSTED:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "message too large")
        elif isinstance(step, errors.OneCardError):
            await context.abort_with_status(to_grpc_status(step))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("authority")
    ensure_server_certificate(directory, host="127.0.0.1")
    issue_participant_certificate(directory, "bank-01")
    return directory


@pytest_asyncio.fixture
async def scripted(certificates: Path) -> AsyncIterator[tuple[ScriptedServer, str]]:
    files = ensure_server_certificate(certificates, host="127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(files.key.read_bytes(), files.certificate.read_bytes())],
        root_certificates=files.authority.read_bytes(),
        require_client_auth=True,
    )
    servicer = ScriptedServer()
    server = grpc.aio.server()
    authorization_pb2_grpc.add_AuthorizationServiceServicer_to_server(servicer, server)
    cards_pb2_grpc.add_CardServiceServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


@contextlib.asynccontextmanager
async def client_of(
    certificates: Path,
    address: str,
    *,
    retry: RetryPolicy = QUICK,
    deadline_s: float = 2.0,
    channels: int = 4,
) -> AsyncIterator[OneCardClient]:
    credentials = ClientCredentials.of_participant(certificates, "bank-01")
    channel = OneCardChannel(address, credentials, channels=channels, deadline_s=deadline_s, retry=retry)
    async with channel:
        yield OneCardClient(channel)


def purchase() -> pb.AuthorizeRequest:
    return pb.AuthorizeRequest(request_id=new_request_id(), amount_minor=1)


@pytest.mark.parametrize(
    "error",
    [
        errors.UnavailableError("DRAINING", "stopping"),
        errors.DatabaseUnavailableError(),
        errors.ContendedError(),
        errors.OverloadedError("full", retry_delay_ms=20),
        errors.DeadlineError(),
    ],
    ids=lambda error: error.reason,
)
async def test_same_request_is_sent_again_until_it_is_answered(
    scripted: tuple[ScriptedServer, str], certificates: Path, error: errors.OneCardError
) -> None:
    server, address = scripted
    server.script = [error, error]
    request = purchase()
    async with client_of(certificates, address) as client:
        assert (await client.authorize(request)).response_code == "00"
        assert (client.channel.counts.calls, client.channel.counts.attempts) == (1, 3)
    # The very same bytes each time: request id, amount and all.
    assert server.requests == [request.SerializeToString()] * 3


async def test_overload_is_not_asked_again_before_the_named_delay(
    scripted: tuple[ScriptedServer, str], certificates: Path
) -> None:
    server, address = scripted
    server.script = [errors.OverloadedError("full", retry_delay_ms=300)]
    async with client_of(certificates, address) as client:
        await client.authorize(purchase())
    first_s, second_s = server.moments_s
    assert second_s - first_s >= 0.3


async def test_overload_without_a_delay_is_not_retried(
    scripted: tuple[ScriptedServer, str], certificates: Path
) -> None:
    server, address = scripted
    server.script = [PLAIN_EXHAUSTED]
    async with client_of(certificates, address) as client:
        with pytest.raises(client_errors.OverloadedError):
            await client.authorize(purchase())
    assert len(server.requests) == 1


async def test_unknown_outcome_is_asked_again_under_the_same_request_id(
    scripted: tuple[ScriptedServer, str], certificates: Path
) -> None:
    server, address = scripted
    server.script = [HANG]
    async with client_of(certificates, address, deadline_s=0.3) as client:
        await client.authorize(purchase())
    assert len(server.requests) == 2
    assert server.requests[0] == server.requests[1]


async def test_unknown_outcome_without_a_request_id_is_told(
    scripted: tuple[ScriptedServer, str], certificates: Path
) -> None:
    server, address = scripted
    server.script = [HANG]
    async with client_of(certificates, address, deadline_s=0.3) as client:
        with pytest.raises(client_errors.OutcomeUnknownError):
            await client.get_card_status(cards_pb2.GetCardStatusRequest())
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("error", "kind", "reason", "field"),
    [
        (
            errors.MalformedFieldError("chip.arqc", "must be 8 bytes"),
            client_errors.MalformedRequestError,
            *("MALFORMED_FIELD", "chip.arqc"),
        ),
        (
            errors.UnauthenticatedError("CALLER_UNKNOWN", "nobody"),
            client_errors.NotAllowedError,
            *("CALLER_UNKNOWN", ""),
        ),
        (
            errors.NotGrantedError("REGION_NOT_GRANTED", "no"),
            client_errors.NotAllowedError,
            *("REGION_NOT_GRANTED", ""),
        ),
        (
            errors.NotFoundError("CARD_UNKNOWN", "none", field="card"),
            client_errors.NotFoundError,
            *("CARD_UNKNOWN", "card"),
        ),
        (
            errors.RequestIdReusedError("amount_minor"),
            client_errors.RequestIdReusedError,
            *("REQUEST_ID_REUSED", "amount_minor"),
        ),
        (
            errors.AlreadyExistsError("CARD_ALREADY_ISSUED", "taken", field="pan"),
            client_errors.AlreadyExistsError,
            *("CARD_ALREADY_ISSUED", "pan"),
        ),
        (
            errors.StateConflictError("CARD_STATE_CONFLICT", "no"),
            client_errors.StateConflictError,
            *("CARD_STATE_CONFLICT", ""),
        ),
        (errors.InternalError("17"), OneCardCallError, "INTERNAL", ""),
    ],
    ids=lambda value: value.reason if isinstance(value, errors.OneCardError) else "",
)
async def test_refusal_is_typed_and_never_sent_again(
    scripted: tuple[ScriptedServer, str],
    certificates: Path,
    error: errors.OneCardError,
    kind: type[OneCardCallError],
    reason: str,
    field: str,
) -> None:
    server, address = scripted
    server.script = [error]
    async with client_of(certificates, address) as client:
        with pytest.raises(OneCardCallError) as raised:
            await client.authorize(purchase())
    assert len(server.requests) == 1
    assert type(raised.value) is kind
    assert (raised.value.reason, raised.value.field) == (reason, field)
    assert raised.value.message == error.message


async def test_attempts_are_bounded(scripted: tuple[ScriptedServer, str], certificates: Path) -> None:
    server, address = scripted
    server.script = [errors.ContendedError() for _ in range(10)]
    async with client_of(certificates, address) as client:
        with pytest.raises(client_errors.ContendedError):
            await client.authorize(purchase())
    assert len(server.requests) == QUICK.attempts_max


async def test_overall_deadline_bounds_the_attempts(
    scripted: tuple[ScriptedServer, str], certificates: Path
) -> None:
    server, address = scripted
    server.script = [HANG] * 10
    bounded = RetryPolicy(attempts_max=100, overall_deadline_s=0.5, backoff_first_s=0.005)
    started_s = time.monotonic()
    async with client_of(certificates, address, retry=bounded, deadline_s=0.2) as client:
        with pytest.raises(client_errors.OutcomeUnknownError):
            await client.authorize(purchase())
    assert time.monotonic() - started_s < 1.0
    assert 2 <= len(server.requests) <= 4


async def test_retry_takes_another_connection_than_the_one_that_failed(
    scripted: tuple[ScriptedServer, str], certificates: Path
) -> None:
    server, address = scripted
    server.script = [errors.UnavailableError("DRAINING", "stopping")]
    async with client_of(certificates, address, channels=2) as client:
        await client.authorize(purchase())
    assert len(set(server.peers)) == 2


async def test_calls_in_flight_are_spread_over_all_connections(
    scripted: tuple[ScriptedServer, str], certificates: Path
) -> None:
    server, address = scripted
    # None is answered before all have come.
    server.gate = asyncio.Barrier(8)
    async with client_of(certificates, address, channels=4) as client:
        await asyncio.gather(*(client.authorize(purchase()) for _ in range(8)))
    assert sorted(server.peers.count(peer) for peer in set(server.peers)) == [2, 2, 2, 2]


async def test_server_that_is_gone_is_told_after_the_attempts(certificates: Path) -> None:
    async with client_of(certificates, "127.0.0.1:1") as client:
        with pytest.raises(client_errors.UnavailableError) as raised:
            await client.authorize(purchase())
        assert client.channel.counts.attempts == QUICK.attempts_max
    assert raised.value.reason == ""


def test_credentials_show_paths_and_no_key(certificates: Path) -> None:
    credentials = ClientCredentials.of_participant(certificates, "bank-01")
    assert "BEGIN" not in repr(credentials)
    assert credentials.key.exists()


def test_request_ids_are_time_ordered_and_of_version_7() -> None:
    ids = [new_request_id() for _ in range(1_000)]
    assert ids == sorted(ids)
    assert all(request_id[14] == "7" for request_id in ids)
