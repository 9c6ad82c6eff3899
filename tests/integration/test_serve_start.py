"""``onecard serve``: what it says when it starts, and the one line it says when it cannot."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running_instance import Instance, eventually, run_apart

from server.development_ca import ensure_server_certificate, issue_participant_certificate
from server.settings import socket_dsn

START_MAX_S = 3.0
WORKER_MEMORY_MAX_MB = 150

Serve = Callable[..., Instance]


def page(facts: dict[str, Any], path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{facts['metrics_port']}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def refusal(instance: Instance) -> str:
    """The single line of an instance that must not start."""
    assert instance.exit_code() == 2, instance.errors()
    assert "Traceback" not in instance.errors()
    assert instance.output() == ""
    (line,) = [line for line in instance.errors().splitlines() if not line.startswith("{")]
    return line.removeprefix("onecard: ")


def onecard(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "server.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def health(facts: dict[str, Any], credentials: grpc.ChannelCredentials) -> int:
    with grpc.secure_channel(f"localhost:{facts['port']}", credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status)


def test_instance_serves_tells_its_pids_and_keeps_within_its_memory(serve: Serve) -> None:
    instance = serve(workers=2)
    facts = instance.until_ready()
    assert instance.output().count("\n") == 1
    assert facts["supervisor_pid"] == instance.process.pid
    assert len(facts["worker_pids"]) == 2
    for pid in facts["worker_pids"]:
        assert psutil.Process(pid).memory_info().rss < WORKER_MEMORY_MAX_MB << 20
    eventually(lambda: json.loads(page(facts, "/healthz"))["serving"])
    eventually(lambda: 'job="create_partitions",outcome="succeeded"} 1.0' in page(facts, "/metrics"))
    assert 'onecard_processes{kind="worker"} 2.0' in page(facts, "/metrics")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        page(facts, "/nothing")


def test_start_on_existing_data_takes_under_three_seconds(serve: Serve) -> None:
    first = serve()
    first.until_ready()
    assert first.stop() == 0
    started = time.monotonic()
    serve(workers=2).until_ready()
    assert time.monotonic() - started < START_MAX_S


def test_only_callers_with_a_certificate_of_the_authority_are_served(serve: Serve, data_dir: Path) -> None:
    facts = serve().until_ready()
    files = issue_participant_certificate(data_dir, "bank-01")
    known = grpc.ssl_channel_credentials(
        files.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )
    assert health(facts, known) == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        health(facts, grpc.ssl_channel_credentials(files.authority.read_bytes()))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


def test_renewed_certificate_is_served_without_a_restart(serve: Serve, data_dir: Path) -> None:
    facts = serve().until_ready()
    server = data_dir / "tls" / "server.pem"
    before = server.read_bytes()

    def presented() -> str:
        import ssl

        files = issue_participant_certificate(data_dir, "bank-01")
        context = ssl.create_default_context(cafile=str(files.authority))
        context.load_cert_chain(files.certificate, files.key)
        address = ("127.0.0.1", facts["port"])
        with (
            socket.create_connection(address) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")

    assert presented().split() == before.decode().split()
    server.write_bytes(issue_participant_certificate(data_dir, "stranger").certificate.read_bytes())
    assert presented().split() == before.decode().split()  # does not belong to the key: the old pair stays
    server.unlink()
    ensure_server_certificate(data_dir, host="127.0.0.1")
    assert server.read_bytes() != before
    eventually(lambda: presented().split() == server.read_text().split())


def test_taken_port_is_one_line(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        assert f"port {port} on 127.0.0.1 is taken" in refusal(serve("--port", str(port)))


def test_port_shared_by_another_service_is_taken_too(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as holder:
        port = holder.getsockname()[1]
        assert f"port {port} on 127.0.0.1 is taken" in refusal(serve("--port", str(port)))


def test_taken_metrics_port_is_one_line(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        assert f"metrics port {port}" in refusal(serve("--metrics-port", str(port)))


def test_file_in_place_of_the_data_directory_is_one_line(serve: Serve, data_dir: Path) -> None:
    blocked = data_dir / "blocked"
    blocked.write_text("")
    assert "cannot be used: File exists" in refusal(serve("--data-dir", str(blocked)))
    assert "cannot be used: Not a directory" in refusal(serve("--data-dir", str(blocked / "below")))


def test_second_instance_on_the_data_directory_is_refused(serve: Serve, data_dir: Path) -> None:
    first = serve()
    first.until_ready()
    assert refusal(serve()) == f"data directory {data_dir} is in use by process {first.process.pid}"
    assert first.process.poll() is None


def test_unreachable_database_is_one_line_without_the_password(serve: Serve, data_dir: Path) -> None:
    files = ensure_server_certificate(data_dir, host="127.0.0.1")
    line = refusal(
        serve(
            *("--dsn", "postgresql://core:hunter2@127.0.0.1:1/onecard"),
            *("--tls-certificate", str(files.certificate)),
            *("--tls-key", str(files.key)),
            *("--tls-client-ca", str(files.authority)),
        )
    )
    assert line.startswith("cannot connect to the database postgresql://core@127.0.0.1:1/onecard")
    assert "hunter2" not in line


def test_tls_pair_that_does_not_match_is_one_line(serve: Serve, data_dir: Path) -> None:
    files = ensure_server_certificate(data_dir, host="127.0.0.1")
    other = issue_participant_certificate(data_dir, "bank-01")
    flags = ("--tls-certificate", str(files.certificate), "--tls-key", str(other.key))
    line = refusal(serve(*flags, "--tls-client-ca", str(files.authority)))
    assert "does not belong to key" in line


def test_changed_migration_stops_the_start(serve: Serve) -> None:
    instance = serve()
    facts = instance.until_ready()

    async def pretend_another_file_was_applied() -> None:
        connection = await asyncpg.connect(socket_dsn(Path(facts["socket_dir"])))
        await connection.execute("UPDATE schema_migrations SET digest_sha256 = 'other' WHERE version = 1")
        await connection.close()

    run_apart(pretend_another_file_was_applied())
    assert instance.stop() == 0
    assert "was changed after it was applied" in refusal(serve())


def test_participants_are_managed_on_the_running_instance(serve: Serve, data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    absent = onecard("participants", "list", *where)
    assert absent.returncode == 2
    assert absent.stderr.startswith("onecard: no onecard runs on")
    serve().until_ready()
    added = onecard("participants", "add", "bank-01", "--name", "First Bank", "--kind", "bank", *where)
    assert "bank-01 added" in added.stdout
    assert (data_dir / "tls/participants/bank-01.pem").exists()
    assert os.stat(data_dir / "tls/participants/bank-01.key").st_mode & 0o077 == 0
    granted = onecard("participants", "grant", "bank-01", "region", "360000", "360100", *where)
    assert "2 granted" in granted.stdout
    assert "1 taken away" in onecard("participants", "revoke", "bank-01", "region", "360100", *where).stdout
    assert "suspended" in onecard("participants", "revoke", "bank-01", *where).stdout
    shown = onecard("participants", "list", *where).stdout
    assert "region:360000" in shown
    assert "360100" not in shown
    unknown = onecard("participants", "grant", "bank-02", "region", "360000", *where)
    assert unknown.stderr == "onecard: there is no participant bank-02\n"
    outside = onecard("participants", "add", "../x", "--name", "x", "--kind", "bank", *where)
    assert outside.returncode == 2
    assert outside.stderr.count("\n") == 1
