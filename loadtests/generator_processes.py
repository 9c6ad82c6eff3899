"""Starts the generators, starts their clocks together, and adds up what they have seen."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from loadtests.generator_job import READY, GeneratorJob
from loadtests.tally import SceneTally

# Locust spawns its greenlets in this time.
_START_IN_S: Final = 0.5
_EXIT_S_MAX: Final = 30.0


class GeneratorError(Exception):
    """A generator ended without a result; its own message went to stderr."""


def run_generators(jobs: Sequence[GeneratorJob]) -> SceneTally:
    """Runs all jobs at the same time.

    Raises:
        GeneratorError: one of them broke off.
    """
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_generator(job)) for job in jobs]
        for process in processes:
            if _line(process) != READY:
                raise GeneratorError("a generator ended before it was ready")
        # One clock for all processes of a host.
        start_s = time.monotonic() + _START_IN_S
        for process in processes:
            _tell(process, repr(start_s))
        tally = SceneTally()
        for process in processes:
            line = _line(process)
            if not line:
                raise GeneratorError("a generator ended without a result")
            tally.add(SceneTally.from_json(json.loads(line)))
        for process in processes:
            process.wait(_EXIT_S_MAX)
        return tally


@contextlib.contextmanager
def _generator(job: GeneratorJob) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "loadtests.generator"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _tell(process, job.to_json())
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None, "it was asked for"
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None, "it was asked for"
    return process.stdout.readline().strip()
