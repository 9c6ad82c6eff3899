"""``onecard serve`` as a process of its own, as an operator would start it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

READY_LINE = re.compile(r"onecard ready on (\S+):(\d+) \((\d+) workers?, metrics (\S+)\)")
WAIT_S = 40.0


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
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
