"""Suites ``unary`` and ``frames``: chip-authenticated, durable purchases on a core of the bench's own.

Before the clock, operations are encoded; after it, the books must agree: ``reconcile`` is clean, and every
approval that was acknowledged is stored, no more and no less. A figure that fails this is marked unusable.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.core_process import BenchCore, checkpoint, reconcile, stored_approvals
from benchmarks.echo_server import SERVICE
from benchmarks.generator_job import GeneratorJob
from benchmarks.generator_process import run_load
from benchmarks.operations import OperationSource
from benchmarks.suite_result import SuiteResult, SuiteSettings, from_load

# What is prepared for each second: well above what two cores decide, and raised with the cores.
_UNARY_PER_SECOND_AND_WORKER: Final = 5_000
_FRAMES_OPERATIONS_PER_SECOND_AND_WORKER: Final = 30_000
APPROVED_SHARE_MIN: Final = 0.99


@dataclass
class CoreSuites:
    """The suites that share one core, its cards and its books."""

    core: BenchCore
    operations: OperationSource
    settings: SuiteSettings
    acknowledged: int = 0
    """Approvals of all runs so far: the database must hold as many."""

    def run_unary(self) -> SuiteResult:
        """One call per purchase."""
        count = int(self._prepared_seconds() * _UNARY_PER_SECOND_AND_WORKER * self.settings.workers)
        payload_file = self.core.data_dir / "unary-requests"
        started = time.monotonic()
        self.operations.write_requests(payload_file, count)
        job = self._job(
            kind="unary",
            method="Authorize",
            payload_file=payload_file,
            in_flight=self.settings.in_flight,
        )
        facts = {"prepared": count, "preparation_s": time.monotonic() - started}
        return self._run("unary", job, unit="calls", facts=facts)

    def run_frames(self) -> SuiteResult:
        """Frames of purchases on bidirectional streams."""
        frame = self.settings.frame
        rate = _FRAMES_OPERATIONS_PER_SECOND_AND_WORKER * self.settings.workers
        count = max(1, int(self._prepared_seconds() * rate / frame))
        payload_file = self.core.data_dir / "frames"
        started = time.monotonic()
        self.operations.write_frames(payload_file, count, frame=frame)
        job = self._job(
            kind="frames",
            method="AuthorizeStream",
            payload_file=payload_file,
            in_flight=self.settings.frames_in_flight,
        )
        facts = {
            "operations_per_frame": frame,
            "prepared": count * frame,
            "preparation_s": time.monotonic() - started,
        }
        return self._run("frames", job, unit="operations", facts=facts)

    def _prepared_seconds(self) -> float:
        return self.settings.warmup_s + self.settings.seconds

    def _job(self, *, method: str, **parts: Any) -> GeneratorJob:
        return GeneratorJob(
            port=self.core.port,
            method=f"/{SERVICE}/{method}",
            tls=(self.core.tls,),
            connections=self.settings.connections,
            warmup_s=self.settings.warmup_s,
            seconds=self.settings.seconds,
            worker_pids=self.core.worker_pids,
            **parts,
        )

    def _run(self, suite: str, job: GeneratorJob, *, unit: str, facts: dict[str, Any]) -> SuiteResult:
        checkpoint(self.core)
        run = run_load(job, processes=self.core.processes, trees=self.core.trees)
        job.payload_file.unlink()
        self.acknowledged += run.result.whole.approved
        stored = stored_approvals(self.core)
        disagreement = reconcile(self.core)
        facts |= {
            "connections": job.connections,
            "in_flight": job.in_flight,
            "cards": self.settings.cards,
            "approvals_acknowledged_so_far": self.acknowledged,
            "approvals_stored_so_far": stored,
            "reconciled": disagreement is None,
        }
        whole = run.result.whole
        result = from_load(suite, run, asked_s=self.settings.seconds, unit=unit, facts=facts)
        return result.with_failures(
            [
                *check_approvals(approved=whole.approved, answered=whole.answered),
                *check_books(acknowledged=self.acknowledged, stored=stored, disagreement=disagreement),
            ]
        )


def check_approvals(*, approved: int, answered: int) -> list[str]:
    """A decline costs less than an approval: a figure with many of them would flatter the core."""
    if approved >= answered * APPROVED_SHARE_MIN:
        return []
    return [f"only {approved} of {answered} operations were approved"]


def check_books(*, acknowledged: int, stored: int, disagreement: str | None) -> list[str]:
    """Reasons not to use a figure that the core's own books give; empty when they agree with the answers."""
    found = []
    if stored != acknowledged:
        found.append(f"{acknowledged} approvals acknowledged, {stored} stored")
    if disagreement:
        found.append(f"reconcile: {disagreement}")
    return found
