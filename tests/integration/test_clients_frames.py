"""Frames over a stream that breaks, hangs or refuses: every frame is answered once, in order, or the caller is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import authorization_pb2_grpc, common_pb2

from clients.bank import Bank
from clients.channel import ClientCredentials, OneCardChannel, new_request_id
from clients.errors import (
    ContendedError,
    MalformedRequestError,
    OneCardCallError,
    OutcomeUnknownError,
    UnavailableError,
)
from clients.retry import RetryPolicy
from clients.service_client import OneCardClient
from server import errors
from server.development_ca import ensure_server_certificate, issue_participant_certificate
from server.edge.status import to_grpc_status

QUICK = RetryPolicy(attempts_max=4, overall_deadline_s=5.0, backoff_first_s=0.005, backoff_max_s=0.02)
FRAMES = 20


class StreamServer(authorization_pb2_grpc.AuthorizationServiceServicer):
    """Answers frames; each stream ends after as many answers as ``breaks`` says next, with ``error`` or in silence."""

    def __init__(self) -> None:
        self.breaks: list[int] = []
        self.error: errors.OneCardError | None = errors.UnavailableError("DRAINING", "stopping")
        self.received: list[int] = []
        self.streams = 0
        self.hold_until = 0
        self.refuse_operation: errors.OneCardError | None = None

    async def AuthorizeStream(
        self, request_iterator: AsyncIterator[pb.AuthorizeStreamRequest], context: Any
    ) -> AsyncIterator[pb.AuthorizeStreamResponse]:
        self.streams += 1
        answers_left = self.breaks.pop(0) if self.breaks else None
        held: list[pb.AuthorizeStreamRequest] = []
        async for frame in request_iterator:
            self.received.append(frame.frame_id)
            held.append(frame)
            if len(self.received) < self.hold_until:
                continue
            for each in held:
                if answers_left == 0:
                    if self.error is None:
                        await asyncio.sleep(30)
                    else:
                        await context.abort_with_status(to_grpc_status(self.error))
                answers_left = None if answers_left is None else answers_left - 1
                yield self._answer(each)
            held.clear()

    def _answer(self, frame: pb.AuthorizeStreamRequest) -> pb.AuthorizeStreamResponse:
        answer = pb.AuthorizeStreamResponse(frame_id=frame.frame_id)
        for operation in frame.operations:
            answer.results.add(response=pb.AuthorizeResponse(response_code="00", rrn=operation.merchant_id))
        if self.refuse_operation is not None:
            error = common_pb2.OperationError(code=10, reason="CONTENDED", field="", retry_delay_ms=50)
            answer.results[0].error.CopyFrom(error)
        return answer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("authority")
    ensure_server_certificate(directory, host="127.0.0.1")
    issue_participant_certificate(directory, "bank-01")
    return directory


@pytest_asyncio.fixture
async def stream_server(authority: Path) -> AsyncIterator[tuple[StreamServer, Bank]]:
    files = ensure_server_certificate(authority, host="127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(files.key.read_bytes(), files.certificate.read_bytes())],
        root_certificates=files.authority.read_bytes(),
        require_client_auth=True,
    )
    servicer = StreamServer()
    server = grpc.aio.server()
    authorization_pb2_grpc.add_AuthorizationServiceServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    channel = OneCardChannel(
        f"127.0.0.1:{port}",
        ClientCredentials.of_participant(authority, "bank-01"),
        deadline_s=0.5,
        retry=QUICK,
    )
    async with channel:
        yield servicer, Bank(OneCardClient(channel))
    await server.stop(None)


async def frames(count: int = FRAMES) -> AsyncIterator[list[pb.AuthorizeRequest]]:
    """Each operation carries its number, which comes back as its RRN."""
    for number in range(count):
        yield [
            pb.AuthorizeRequest(request_id=new_request_id(), merchant_id=f"{number}-{position}")
            for position in range(3)
        ]


async def answers_of(bank: Bank, *, in_flight_max: int = 8) -> list[str]:
    rrns: list[str] = []
    async for outcomes in bank.authorize_frames(frames(), in_flight_max=in_flight_max):
        rrns += [str(o) if isinstance(o, OneCardCallError) else o.rrn for o in outcomes]
    return rrns


ALL = [f"{number}-{position}" for number in range(FRAMES) for position in range(3)]


async def test_every_operation_is_answered_in_order_over_one_stream(
    stream_server: tuple[StreamServer, Bank],
) -> None:
    server, bank = stream_server
    assert await answers_of(bank) == ALL
    assert (server.streams, server.received) == (1, list(range(1, FRAMES + 1)))


async def test_frames_are_on_their_way_before_the_first_answer(
    stream_server: tuple[StreamServer, Bank],
) -> None:
    server, bank = stream_server
    server.hold_until = 8
    assert await answers_of(bank) == ALL


async def test_no_more_frames_are_on_their_way_than_allowed(
    stream_server: tuple[StreamServer, Bank],
) -> None:
    server, bank = stream_server
    server.hold_until = 1_000
    with pytest.raises(OutcomeUnknownError):
        await answers_of(bank, in_flight_max=2)
    assert max(server.received) == 2


@pytest.mark.parametrize("breaks", [[0], [5], [3, 0, 4], [19]])
async def test_frames_without_an_answer_are_sent_again_when_the_stream_breaks(
    stream_server: tuple[StreamServer, Bank], breaks: list[int]
) -> None:
    server, bank = stream_server
    server.breaks = list(breaks)
    assert await answers_of(bank) == ALL
    assert server.streams == len(breaks) + 1
    assert set(server.received) == set(range(1, FRAMES + 1))


async def test_stream_that_falls_silent_is_opened_anew(stream_server: tuple[StreamServer, Bank]) -> None:
    server, bank = stream_server
    server.breaks, server.error = [4], None
    assert await answers_of(bank) == ALL
    assert server.streams == 2


async def test_stream_that_makes_no_progress_is_given_up(stream_server: tuple[StreamServer, Bank]) -> None:
    server, bank = stream_server
    server.breaks = [0] * 50
    with pytest.raises(UnavailableError):
        await answers_of(bank)
    assert server.streams == QUICK.attempts_max


async def test_refused_stream_is_told(stream_server: tuple[StreamServer, Bank]) -> None:
    server, bank = stream_server
    # Refused however often it is tried: grpc.aio sometimes loses the status to a write that fails in the same moment,
    # and a stream that ends without one is tried again.
    server.breaks = [2] + [0] * 50
    server.error = errors.MalformedFieldError("operations", "must be 1 to 512")
    with pytest.raises(MalformedRequestError) as raised:
        await answers_of(bank)
    assert raised.value.field == "operations"
    assert server.streams <= QUICK.attempts_max


async def test_operation_without_outcome_leaves_its_neighbours_alone(
    stream_server: tuple[StreamServer, Bank],
) -> None:
    server, bank = stream_server
    server.refuse_operation = errors.ContendedError()
    async for outcomes in bank.authorize_frames(frames(1)):
        assert isinstance(outcomes[0], ContendedError)
        assert outcomes[0].retry_delay_s == 0.05
        assert [outcome.rrn for outcome in outcomes[1:] if isinstance(outcome, pb.AuthorizeResponse)] == ALL[
            1:3
        ]


async def test_failing_source_is_told_after_its_frames_were_answered(
    stream_server: tuple[StreamServer, Bank],
) -> None:
    _, bank = stream_server

    async def failing() -> AsyncIterator[list[pb.AuthorizeRequest]]:
        async for frame in frames(3):
            yield frame
        raise ValueError("the file ends in the middle of a line")

    seen: list[int] = []

    async def count() -> None:
        async for outcomes in bank.authorize_frames(failing()):
            seen.append(len(outcomes))

    with pytest.raises(ValueError, match="middle of a line"):
        await count()
    assert seen == [3, 3, 3]


async def test_caller_may_stop_in_the_middle(stream_server: tuple[StreamServer, Bank]) -> None:
    _, bank = stream_server
    async for outcomes in bank.authorize_frames(frames()):
        assert len(outcomes) == 3
        break
    assert (await answers_of(bank))[:3] == ALL[:3]
