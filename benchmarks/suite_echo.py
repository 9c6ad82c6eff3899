"""Suite ``echo``: what a bare grpc.aio server answers on this machine, under the load of suite ``unary``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uuid_utils
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import common_pb2

from benchmarks.echo_server import SERVICE, echo_workers
from benchmarks.generator_job import GeneratorJob, TlsFiles
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
                connections=settings.connections,
                in_flight=settings.in_flight,
                warmup_s=settings.warmup_s,
                seconds=settings.seconds,
                worker_pids=tuple(pids),
            )
            run = run_load(job, processes={"workers": pids}, trees={})
    facts = {"connections": settings.connections, "in_flight_per_connection": settings.in_flight}
    return from_load("echo", run, asked_s=settings.seconds, unit="calls", facts=facts)
