"""Starts the generator, waits for its clock, and reads the CPU of everybody else at both ends of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.cpu_accounting import CpuSample, CpuUse, cores
from benchmarks.generator import STARTED, STOPPED
from benchmarks.generator_job import GeneratorJob, GeneratorResult

_EXIT_TIMEOUT_S: Final = 30.0


class GeneratorError(Exception):
    """The generator ended without a result; its own message went to stderr."""


@dataclass(frozen=True)
class LoadRun:
    """One run of the generator, with the CPU of every group within its measured time."""

    result: GeneratorResult
    cpu: Mapping[str, CpuUse]

    @property
    def rate_per_s(self) -> float:
        """Answered operations per second of the measured time."""
        return self.result.measured.answered / self.result.seconds

    @property
    def errors(self) -> int:
        """Operations without an outcome in the whole run."""
        return self.result.whole.errors.total() + self.result.unanswered

    def worker_us_per_operation(self) -> float:
        """CPU of all server workers per answered operation, in µs."""
        return self.cpu["workers"].seconds * 1e6 / max(1, self.result.measured.answered)


def run_load(
    job: GeneratorJob, *, processes: Mapping[str, Sequence[int]], trees: Mapping[str, int]
) -> LoadRun:
    """Runs one job.

    Args:
        job: what to send.
        processes: groups of pids whose CPU is read; "workers" must be one of them.
        trees: groups counted with their children, for instance PostgreSQL by its postmaster.
    Raises:
        GeneratorError: the generator broke off.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.generator"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(job.to_json() + "\n")
            child.stdin.close()
            samples = []
            for event in (STARTED, STOPPED):
                if child.stdout.readline().strip() != event:
                    raise GeneratorError(f"the generator ended before it had {event}")
                samples.append(CpuSample.take(processes=processes, trees=trees))
            line = child.stdout.readline()
            if not line:
                raise GeneratorError("the generator ended without a result")
            child.wait(_EXIT_TIMEOUT_S)
        finally:
            if child.poll() is None:
                child.kill()
    result = GeneratorResult.from_json(line)
    generator = CpuUse(result.cpu_s, result.cpu_s / (result.seconds * cores()))
    return LoadRun(result, {"generator": generator, **samples[1].since(samples[0])})
