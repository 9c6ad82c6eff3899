"""Suites ``echo`` and ``echo-idle``: a bare grpc.aio server under the loads of ``unary`` and ``idle``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uuid_utils
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import common_pb2

from benchmarks.echo_server import SERVICE, echo_workers
from benchmarks.generator_job import TURN_US_MIN, GeneratorJob, TlsFiles
from benchmarks.generator_process import run_load
from benchmarks.payload_file import write_payloads
from benchmarks.suite_result import SuiteResult, SuiteSettings, from_load
from server.development_ca import CertificateFiles, ensure_server_certificate, issue_participant_certificate

_REQUESTS: Final = 20_000


def tls_files(files: CertificateFiles) -> TlsFiles:
    """The core's own certificate files, as the generator names them."""
    return TlsFiles(ca=files.authority, certificate=files.certificate, key=files.key)


def echo_requests(count: int) -> Iterator[bytes]:
    """Requests of the size of a real purchase; nobody reads them."""
    chip = common_pb2.ChipCryptogram(
        arqc=bytes(8),
        atc=1,
        unpredictable_number=bytes(4),
        tvr=bytes(5),
        aip=bytes(2),
        iad=bytes(18),
        transaction_date="260101",
    )
    for serial in range(count):
        yield pb.AuthorizeRequest(
            request_id=str(uuid_utils.uuid7()),
            operation=pb.OPERATION_TYPE_PURCHASE,
            pan="6217000010012345677",
            amount_minor=1_000 + serial % 1_000,
            currency_code="CNY",
            terminal_id=f"T{serial:07d}",
            merchant_id="M00000000000001",
            stan=serial + 1,
            terminal_time_unix_ms=1_767_200_000_000,
            chip=chip,
        ).SerializeToString()


def run_echo(settings: SuiteSettings) -> SuiteResult:
    """As many calls as the server answers."""
    return _run(
        "echo",
        settings,
        connections=settings.connections,
        in_flight=settings.in_flight,
        turn_us_min=TURN_US_MIN,
    )


def run_echo_idle(settings: SuiteSettings) -> SuiteResult:
    """One caller with one call in flight."""
    return _run("echo-idle", settings, connections=1, in_flight=1, turn_us_min=0)


def _run(
    suite: str, settings: SuiteSettings, *, connections: int, in_flight: int, turn_us_min: int
) -> SuiteResult:
    """Starts the echo workers, drives them, stops them."""
    with tempfile.TemporaryDirectory(prefix="onecard-bench-echo-") as name:
        directory = Path(name)
        server = tls_files(ensure_server_certificate(directory, host="127.0.0.1"))
        client = tls_files(issue_participant_certificate(directory, "bench"))
        payload_file = directory / "requests"
        write_payloads(payload_file, echo_requests(_REQUESTS))
        with echo_workers(settings.workers, tls=server) as (port, pids):
            job = GeneratorJob(
                kind="unary",
                port=port,
                method=f"/{SERVICE}/Authorize",
                tls=(client,),
                payload_file=payload_file,
                cycles=True,
                connections=connections,
                in_flight=in_flight,
                warmup_s=settings.warmup_s,
                seconds=settings.seconds,
                worker_pids=tuple(pids),
                turn_us_min=turn_us_min,
            )
            run = run_load(job, processes={"workers": pids}, trees={})
    facts = {"connections": connections, "in_flight_per_connection": in_flight}
    return from_load(suite, run, asked_s=settings.seconds, unit="calls", facts=facts)
