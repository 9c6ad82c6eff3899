"""What every suite on a core of the bench's own has in common: purchases encoded ahead, a run, and books that agree.

Before the clock, operations are encoded; after it, the books must agree: ``reconcile`` is clean, and every
approval that was acknowledged is stored, no more and no less. A figure that fails this is marked unusable.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.core_cards import CardBase
from benchmarks.core_process import BenchCore, checkpoint, reconcile, stored_approvals
from benchmarks.echo_server import SERVICE
from benchmarks.generator_job import TURN_US_MIN, GeneratorJob
from benchmarks.generator_process import run_load
from benchmarks.operations import FLAW_CODES, SPREAD, Mix, OperationSource
from benchmarks.suite_result import SuiteResult, SuiteSettings, from_load

# Prepared for each second of a closed loop: well above what is decided, at first by a guess, then by what was measured.
GUESS_PER_SECOND_AND_WORKER: Final = {"unary": 5_000, "frames": 20_000}
_MEASURED_RESERVE: Final = 2
_METHODS: Final = {"unary": "Authorize", "frames": "AuthorizeStream"}
_SHARE_TOLERANCE: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one suite puts on the core.

    Args:
        suite: its name.
        kind: single calls, or frames on streams.
        frame: operations per frame; 0 for single calls.
        mix: of the purchases.
        one_acquirer: all from one participant; else the connections belong to several in turn.
        connections: how many.
        streams: per connection, for frames.
        in_flight: calls per connection, or frames per stream; with a rate, the most of them.
        rate_per_s: of an open loop; None for a closed one.
        prepared_per_s: operations to encode for each second; None for a closed loop's usual number.
        turn_us_min: least time between two looks at the sockets.
        seconds: measured; None for the settings' own.
    """

    suite: str
    kind: Literal["unary", "frames"]
    frame: int = 0
    mix: Mix = SPREAD
    one_acquirer: bool = False
    connections: int
    streams: int = 1
    in_flight: int
    rate_per_s: float | None = None
    prepared_per_s: int | None = None
    turn_us_min: int = TURN_US_MIN
    seconds: float | None = None


@dataclass
class CoreBench:
    """One core with its cards, and what has been measured on it so far."""

    core: BenchCore
    base: CardBase
    operations: OperationSource
    settings: SuiteSettings
    acknowledged: int = 0
    """Approvals of all runs so far: the database must hold as many."""
    rates: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Suite → rate of each of its runs."""

    def run(self, load: Load, *, beside: AbstractContextManager[object] | None = None) -> SuiteResult:
        """Encodes the operations, drives the core with them, and compares answers and books.

        Args:
            load: what to put on the core.
            beside: entered while the core is driven.
        """
        payload_file = self.core.data_dir / load.suite
        started_s = time.monotonic()
        prepared = self._prepare(load, payload_file)
        facts: dict[str, Any] = {"prepared": prepared, "preparation_s": time.monotonic() - started_s}
        checkpoint(self.core)
        job = self._job(load, payload_file)
        with beside or nullcontext():
            run = run_load(job, processes=self.core.processes, trees=self.core.trees)
        payload_file.unlink()
        self.rates[load.suite].append(run.rate_per_s)
        whole = run.result.whole
        self.acknowledged += whole.approved
        stored, disagreement = stored_approvals(self.core), reconcile(self.core)
        facts |= {
            "operations_per_frame": load.frame or None,
            "connections": job.connections,
            "streams_per_connection": job.streams,
            "in_flight": job.in_flight,
            "asked_per_s": load.rate_per_s,
            "cards": self.base.cards,
            "approvals_acknowledged_so_far": self.acknowledged,
            "approvals_stored_so_far": stored,
            "reconciled": disagreement is None,
        }
        unit = "operations" if load.frame else "calls"
        result = from_load(load.suite, run, asked_s=job.seconds, unit=unit, facts=facts)
        return result.with_failures(
            [
                *check_declines(
                    whole.declines, answered=whole.answered, approved=whole.approved, mix=load.mix
                ),
                *check_books(acknowledged=self.acknowledged, stored=stored, disagreement=disagreement),
            ]
        )

    def _prepare(self, load: Load, path: Path) -> int:
        """Writes the operations of a run; returns how many."""
        count = self._operations(load)
        if not load.frame:
            return self.operations.write_requests(path, count, mix=load.mix)
        frames = max(1, count // load.frame)
        return self.operations.write_frames(path, frames, frame=load.frame, mix=load.mix) * load.frame

    def _operations(self, load: Load) -> int:
        seconds = self.settings.warmup_s + (load.seconds or self.settings.seconds)
        if load.rate_per_s is not None:
            expected = load.rate_per_s * seconds
            # The arrivals are random: five standard deviations more than their mean do not come.
            return int(expected + 5 * sqrt(expected)) + 1
        if load.prepared_per_s is not None:
            return int(seconds * load.prepared_per_s) + 1
        guess = GUESS_PER_SECOND_AND_WORKER[load.kind] * self.settings.workers
        measured = self.rates[load.suite]
        return int(seconds * (max(measured) * _MEASURED_RESERVE if measured else guess)) + 1

    def _job(self, load: Load, payload_file: Path) -> GeneratorJob:
        acquirers = self.core.acquirers
        return GeneratorJob(
            kind=load.kind,
            port=self.core.port,
            method=f"/{SERVICE}/{_METHODS[load.kind]}",
            tls=acquirers[:1] if load.one_acquirer else acquirers,
            payload_file=payload_file,
            connections=load.connections,
            streams=load.streams,
            in_flight=load.in_flight,
            rate_per_s=load.rate_per_s,
            seed=self.settings.seed,
            warmup_s=self.settings.warmup_s,
            seconds=load.seconds or self.settings.seconds,
            worker_pids=self.core.worker_pids,
            turn_us_min=load.turn_us_min,
        )


def check_declines(declines: Mapping[str, int], *, answered: int, approved: int, mix: Mix) -> list[str]:
    """A decline costs something else than an approval: a figure with other declines than were asked for would mislead.

    Args:
        declines: response code → how many, as far as answers were decoded.
        answered: operations with an outcome.
        approved: of these.
        mix: what was asked for.
    """
    # The draw of declines is random too: in a short run their share lies beside the one asked for.
    tolerated = answered * _SHARE_TOLERANCE + 4 * sqrt(answered * mix.declined_share)
    if abs(answered - approved - answered * mix.declined_share) > tolerated:
        return [
            f"{approved} of {answered} operations were approved, {1 - mix.declined_share:.0%} were meant to"
        ]
    if not mix.declined_share:
        return []
    of_each_code = answered * mix.declined_share / len(FLAW_CODES)
    return [
        f"{declines.get(code, 0)} operations were declined with {code}, about {of_each_code:.0f} were meant to"
        for code in FLAW_CODES.values()
        if abs(declines.get(code, 0) - of_each_code) > tolerated
    ]


def check_books(*, acknowledged: int, stored: int, disagreement: str | None) -> list[str]:
    """Reasons not to use a figure that the core's own books give; empty when they agree with the answers."""
    found = []
    if stored != acknowledged:
        found.append(f"{acknowledged} approvals acknowledged, {stored} stored")
    if disagreement:
        found.append(f"reconcile: {disagreement}")
    return found
