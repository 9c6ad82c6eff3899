"""``onecard serve`` as a process of its own, as an operator would start it."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import known_secrets
import psutil

READY_LINE = re.compile(r"onecard ready on (\S+):(\d+) \((\d+) workers?, metrics (\S+)\)")
WAIT_S = 40.0
SHARDS_VARIABLE = "ONECARD_TEST_SHARDS"
Result = TypeVar("Result")


def eventually(condition: Callable[[], Any], *, wait_s: float = WAIT_S) -> Any:
    """The first true value of ``condition``; fails the test when there is none in time."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("the condition did not become true in time")


def is_running(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


class Instance:
    """One ``onecard serve`` as an operator would start it."""

    def __init__(self, data_dir: Path, *flags: str, workers: int = 1) -> None:
        self.data_dir = data_dir
        self._output = data_dir.with_name(f"output-{id(self)}")
        self._errors = data_dir.with_name(f"errors-{id(self)}")
        self._was_searched = False
        options = [
            "--data-dir",
            str(data_dir),
            "--port",
            "0",
            "--metrics-port",
            "0",
            "--workers",
            str(workers),
        ]
        # `make test-shards` has every core of the tests made with several.
        if "--shards" not in flags and (shards := os.environ.get(SHARDS_VARIABLE)):
            options += ["--shards", shards]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ONECARD_")}
        with self._output.open("w") as output, self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server.cli", "serve", *options, *flags],
                stdout=output,
                stderr=errors,
                env=environment,
            )

    def output(self) -> str:
        return self._output.read_text()

    def errors(self) -> str:
        return self._errors.read_text()

    def written(self, stream: str) -> Path:
        """The file of ``output`` or ``errors``."""
        return {"output": self._output, "errors": self._errors}[stream]

    def until_ready(self) -> dict[str, Any]:
        """Waits for the ready line and returns ``onecard.json``."""
        eventually(lambda: READY_LINE.search(self.output()) or self.process.poll() is not None)
        assert READY_LINE.search(self.output()), self.errors()
        return self.facts()

    def facts(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "onecard.json").read_text())

    def exit_code(self) -> int:
        return self.process.wait(timeout=WAIT_S)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.exit_code()

    def close(self) -> None:
        """Stops the process, and fails the test when it wrote a secret anywhere."""
        metrics = self._metrics()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._search(metrics)

    def _metrics(self) -> bytes:
        """The metrics page of a running instance that has one."""
        if self.process.poll() is not None:
            return b""
        with contextlib.suppress(OSError, ValueError, KeyError):
            address = f"http://127.0.0.1:{self.facts()['metrics_port']}/metrics"
            with urllib.request.urlopen(address, timeout=5) as answer:
                return bytes(answer.read())
        return b""

    def _search(self, metrics: bytes) -> None:
        if self._was_searched:
            return
        self._was_searched = True
        places = {"metrics": metrics}
        for path in (self._output, self._errors, *(self.data_dir / "postgres" / "log").glob("*")):
            with contextlib.suppress(OSError):
                places[path.name] = path.read_bytes()
        leaks = known_secrets.leaks(self.data_dir, places)
        assert not leaks, f"a secret was written: {leaks}"


def run_apart(work: "Coroutine[Any, Any, Result]") -> Result:
    """Runs a coroutine from a plain test: in a thread, because ``asyncio.run`` takes the session's loop away."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
