"""The generator against a real grpc.aio server: what it counts must be what the server answered."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import common_pb2

from benchmarks.echo_server import SERVICE, echo_workers
from benchmarks.generator_job import GeneratorJob
from benchmarks.generator_process import LoadRun, run_load
from benchmarks.payload_file import write_payloads
from benchmarks.suite_echo import echo_requests, tls_files
from server.development_ca import ensure_server_certificate, issue_participant_certificate

FRAME = 300


@dataclass
class Answering:
    """Approves, declines and refuses by the amount, and keeps count of it."""

    sent: Counter[str] = field(default_factory=Counter)

    def _kind(self, request: pb.AuthorizeRequest) -> str:
        kind = ("declined", "failed", "approved", "approved")[request.amount_minor % 4]
        self.sent[kind] += 1
        return kind

    def _response(self, kind: str) -> pb.AuthorizeResponse:
        code = "00" if kind == "approved" else "51"
        return pb.AuthorizeResponse(response_code=code, reason=1, rrn="1" * 12, arpc=bytes(8))

    async def authorize(
        self, request: pb.AuthorizeRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.AuthorizeResponse:
        kind = self._kind(request)
        if kind == "failed":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "asked for")
        return self._response(kind)

    async def authorize_stream(
        self, requests: AsyncIterator[pb.AuthorizeStreamRequest], _context: object
    ) -> AsyncIterator[pb.AuthorizeStreamResponse]:
        async for frame in requests:
            answer = pb.AuthorizeStreamResponse(frame_id=frame.frame_id)
            for operation in frame.operations:
                kind = self._kind(operation)
                if kind == "failed":
                    answer.results.add(error=common_pb2.OperationError(code=14, reason="ASKED_FOR"))
                else:
                    answer.results.add(response=self._response(kind))
            yield answer


@contextlib.asynccontextmanager
async def _served(answering: Answering, directory: Path) -> AsyncIterator[int]:
    files = tls_files(ensure_server_certificate(directory, host="127.0.0.1"))
    server = grpc.aio.server()
    handlers = {
        "Authorize": grpc.unary_unary_rpc_method_handler(
            answering.authorize, pb.AuthorizeRequest.FromString, pb.AuthorizeResponse.SerializeToString
        ),
        "AuthorizeStream": grpc.stream_stream_rpc_method_handler(
            answering.authorize_stream,
            pb.AuthorizeStreamRequest.FromString,
            pb.AuthorizeStreamResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    credentials = grpc.ssl_server_credentials(
        [(files.key.read_bytes(), files.certificate.read_bytes())],
        root_certificates=files.ca.read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def _frames(count: int) -> Iterator[bytes]:
    for frame_id in range(count):
        operations = [pb.AuthorizeRequest.FromString(message) for message in echo_requests(FRAME)]
        yield pb.AuthorizeStreamRequest(frame_id=frame_id, operations=operations).SerializeToString()


def _job(directory: Path, port: int, payload_file: Path, **parts: Any) -> GeneratorJob:
    client = tls_files(issue_participant_certificate(directory, "bench"))
    defaults: dict[str, Any] = {"connections": 2, "in_flight": 2, "warmup_s": 0.2, "seconds": 1.0}
    return GeneratorJob(tls=(client,), port=port, payload_file=payload_file, **defaults | parts)


def _check_counts(run: LoadRun, answering: Answering) -> None:
    whole = run.result.whole
    assert run.result.unanswered == 0
    assert whole.approved == answering.sent["approved"] > 0
    assert whole.answered == answering.sent["approved"] + answering.sent["declined"]
    assert whole.errors.total() == answering.sent["failed"]
    assert run.result.measured.answered <= whole.answered
    assert run.result.measured.latencies.percentile_ms(50) > 0


@pytest.mark.timeout(60)
async def test_unary_outcomes_are_counted_as_answered(tmp_path: Path) -> None:
    payload_file = tmp_path / "requests"
    write_payloads(payload_file, echo_requests(2_000))
    answering = Answering()
    async with _served(answering, tmp_path) as port:
        job = _job(tmp_path, port, payload_file, kind="unary", method=f"/{SERVICE}/Authorize", cycles=True)
        run = await asyncio.to_thread(run_load, job, processes={"workers": []}, trees={})
    _check_counts(run, answering)
    assert set(run.result.whole.errors) == {"status 14"}


@pytest.mark.timeout(60)
async def test_frames_larger_than_the_window_are_counted_result_by_result(tmp_path: Path) -> None:
    payload_file = tmp_path / "frames"
    assert write_payloads(payload_file, _frames(20)) == 20
    assert payload_file.stat().st_size / 20 > 40_000
    answering = Answering()
    async with _served(answering, tmp_path) as port:
        job = _job(
            tmp_path,
            port,
            payload_file,
            kind="frames",
            method=f"/{SERVICE}/AuthorizeStream",
            cycles=True,
            streams=2,
            in_flight=3,
        )
        run = await asyncio.to_thread(run_load, job, processes={"workers": []}, trees={})
    _check_counts(run, answering)
    assert set(run.result.whole.errors) == {"ASKED_FOR"}
    assert set(run.result.whole.declines) == {"51"}


@pytest.mark.timeout(60)
async def test_payloads_that_may_not_repeat_end_the_run(tmp_path: Path) -> None:
    payload_file = tmp_path / "frames"
    write_payloads(payload_file, _frames(5))
    answering = Answering()
    async with _served(answering, tmp_path) as port:
        job = _job(
            tmp_path, port, payload_file, kind="frames", method=f"/{SERVICE}/AuthorizeStream", warmup_s=0.0
        )
        run = await asyncio.to_thread(run_load, job, processes={"workers": []}, trees={})
    assert run.result.exhausted
    assert answering.sent.total() == 5 * FRAME
    assert run.result.whole.answered + run.result.whole.errors.total() == 5 * FRAME


@pytest.mark.timeout(60)
def test_connections_lie_evenly_on_the_workers(tmp_path: Path) -> None:
    payload_file = tmp_path / "requests"
    write_payloads(payload_file, echo_requests(100))
    server = tls_files(ensure_server_certificate(tmp_path, host="127.0.0.1"))
    with echo_workers(2, tls=server) as (port, pids):
        job = _job(
            tmp_path,
            port,
            payload_file,
            kind="unary",
            method=f"/{SERVICE}/Authorize",
            cycles=True,
            connections=6,
            worker_pids=tuple(pids),
        )
        run = run_load(job, processes={"workers": pids}, trees={})
    assert sorted(run.result.connections_per_worker.items()) == sorted((pid, 3) for pid in pids)
    assert run.errors == 0
    assert run.result.whole.approved == run.result.whole.answered > 0
    assert run.cpu["workers"].seconds > 0
    assert run.cpu["generator"].seconds > 0


@pytest.mark.timeout(60)
async def test_an_unknown_method_counts_as_errors_not_as_answers(tmp_path: Path) -> None:
    payload_file = tmp_path / "requests"
    write_payloads(payload_file, echo_requests(100))
    async with _served(Answering(), tmp_path) as port:
        job = _job(tmp_path, port, payload_file, kind="unary", method="/onecard.v1.None/Nothing", cycles=True)
        run = await asyncio.to_thread(run_load, job, processes={"workers": []}, trees={})
    assert run.result.whole.answered == 0
    assert run.result.whole.errors["status 12"] > 0
