"""``onecard serve`` when its processes end: in order, one by one, or all at once."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running_instance import Instance, eventually, is_running

Serve = Callable[..., Instance]


def pids(facts: dict[str, Any]) -> list[int]:
    return [*facts["worker_pids"], facts["housekeeper_pid"], facts["postgres_pid"]]


def is_serving(facts: dict[str, Any]) -> bool:
    address = f"http://127.0.0.1:{facts['metrics_port']}/healthz"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(json.loads(answer.read())["serving"])
    except (urllib.error.HTTPError, OSError):
        return False


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_drains_and_exits_0(serve: Serve, data_dir: Path, stop_signal: signal.Signals) -> None:
    instance = serve(workers=2)
    facts = instance.until_ready()
    instance.process.send_signal(stop_signal)
    assert instance.exit_code() == 0
    assert not any(is_running(pid) for pid in pids(facts))
    assert not (data_dir / "onecard.json").exists()
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_stop_signal_while_starting_leaves_nothing_running(serve: Serve, data_dir: Path) -> None:
    instance = serve()
    pid_file = data_dir / "postgres" / "postmaster.pid"
    # PostgreSQL makes the file before it writes it.
    eventually(lambda: pid_file.exists() and pid_file.read_text())
    postgres_pid = int(pid_file.read_text().split()[0])
    assert instance.stop() == 0
    assert not is_running(postgres_pid)


def test_killed_worker_is_started_again(serve: Serve) -> None:
    instance = serve(workers=2)
    facts = instance.until_ready()
    eventually(lambda: is_serving(facts))
    killed = facts["worker_pids"][0]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: len(set(instance.facts()["worker_pids"]) - {killed}) == 2 and is_serving(facts))
    assert "worker 0 ended and is started again" in instance.errors()
    assert instance.stop() == 0


def test_killed_housekeeper_is_started_again(serve: Serve) -> None:
    instance = serve()
    facts = instance.until_ready()
    os.kill(facts["housekeeper_pid"], signal.SIGKILL)
    eventually(lambda: instance.facts()["housekeeper_pid"] not in (None, facts["housekeeper_pid"]))
    eventually(lambda: is_serving(facts))


def test_killed_postgres_is_started_again_under_the_same_workers(serve: Serve) -> None:
    instance = serve()
    facts = instance.until_ready()
    os.kill(facts["postgres_pid"], signal.SIGKILL)
    eventually(lambda: instance.facts()["postgres_pid"] not in (None, facts["postgres_pid"]))
    eventually(lambda: is_serving(facts))
    assert instance.facts()["worker_pids"] == facts["worker_pids"]
    assert instance.stop() == 0


def test_killed_supervisor_takes_everything_along_and_the_next_start_works(serve: Serve) -> None:
    instance = serve(workers=2)
    facts = instance.until_ready()
    instance.process.kill()
    instance.exit_code()
    next_instance = serve("--port", str(facts["port"]), workers=2)
    next_instance.until_ready()
    assert not any(is_running(pid) for pid in pids(facts))
    assert next_instance.stop() == 0


def test_power_cut_of_supervisor_and_postgres_at_once_is_recovered_from(serve: Serve) -> None:
    for _ in range(3):
        instance = serve()
        facts = instance.until_ready()
        os.kill(facts["postgres_pid"], signal.SIGKILL)
        instance.process.kill()
        instance.exit_code()
    assert serve().until_ready()
