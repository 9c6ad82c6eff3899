"""Which suites there are, what each needs, and beside which others its figure means something."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.core_cards import load_cards, open_source
from benchmarks.core_process import BenchCore, bench_core
from benchmarks.suite_core import CoreBench
from benchmarks.suite_crypto import run_crypto
from benchmarks.suite_echo import run_echo, run_echo_idle
from benchmarks.suite_frames import run_cards, run_declines, run_frames, run_hot
from benchmarks.suite_pgbench import run_pgbench
from benchmarks.suite_result import SuiteResult, SuiteSettings
from benchmarks.suite_unary import run_half_load, run_idle, run_soak, run_unary

Runner = Callable[[], SuiteResult]


class Site:
    """What suites share. Each part is made when the first suite asks for it, and gone with the stack.

    Args:
        settings: of all suites.
        parent_dir: where cores keep their data; None is the place for temporary files.
        stack: ends the cores.
        console: where progress is told.
    """

    def __init__(
        self,
        settings: SuiteSettings,
        *,
        parent_dir: Path | None,
        stack: contextlib.ExitStack,
        console: Console,
    ) -> None:
        self.settings: Final = settings
        self._parent_dir: Final = parent_dir
        self._stack: Final = stack
        self._console: Final = console

    @cached_property
    def core(self) -> BenchCore:
        """The core that most suites measure, and its PostgreSQL."""
        return self._start_core()

    @cached_property
    def bench(self) -> CoreBench:
        """The core with its cards."""
        return self._load_cards(self.core, count=self.settings.cards)

    @cached_property
    def large(self) -> CoreBench:
        """A second core, with many more cards. It stands idle while the first is measured."""
        return self._load_cards(self._start_core(), count=self.settings.cards_large)

    def _start_core(self) -> BenchCore:
        self._console.print("starting a core …")
        return self._stack.enter_context(
            bench_core(workers=self.settings.workers, parent_dir=self._parent_dir)
        )

    def _load_cards(self, core: BenchCore, *, count: int) -> CoreBench:
        self._console.print(f"loading {count:,} cards …")
        base = load_cards(core, count=count)
        self._console.print(f"loaded in {base.load_s:,.0f} s, {base.disk_bytes / 2**20:,.0f} MiB")
        return CoreBench(core, base, open_source(core, count=count, seed=self.settings.seed), self.settings)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One suite of the command line.

    Args:
        bind: makes what the suite needs ready and returns what to call in each repeat.
        beside: suites that run too when this one is asked for, because it says nothing without them.
        is_default: whether it runs when none is asked for.
    """

    bind: Callable[[Site], Runner]
    beside: tuple[str, ...] = ()
    is_default: bool = True


def _pgbench(site: Site) -> Runner:
    return partial(run_pgbench, site.core.pgbench_target(), seconds=site.settings.seconds)


def _frames_of(size: int) -> Suite:
    suite = f"frames-{size}"
    return Suite(bind=lambda site: partial(run_frames, site.bench, suite=suite, frame=size))


# In the order in which they run: neighbours are compared with each other.
SUITES: Final[dict[str, Suite]] = {
    "echo-idle": Suite(bind=lambda site: partial(run_echo_idle, site.settings)),
    "idle": Suite(bind=lambda site: partial(run_idle, site.bench), beside=("echo-idle",)),
    "echo": Suite(bind=lambda site: partial(run_echo, site.settings)),
    "unary": Suite(bind=lambda site: partial(run_unary, site.bench)),
    "half-load": Suite(bind=lambda site: partial(run_half_load, site.bench), beside=("unary",)),
    "frames-16": _frames_of(16),
    "frames-64": _frames_of(64),
    "pgbench": Suite(bind=_pgbench),
    "frames": Suite(bind=lambda site: partial(run_frames, site.bench)),
    "frames-512": _frames_of(512),
    "hot": Suite(bind=lambda site: partial(run_hot, site.bench), beside=("frames",)),
    "declines": Suite(bind=lambda site: partial(run_declines, site.bench), beside=("frames",)),
    "cards": Suite(bind=lambda site: partial(run_cards, site.large), beside=("frames",), is_default=False),
    "crypto": Suite(bind=lambda site: partial(run_crypto, seconds=site.settings.seconds)),
    "soak": Suite(bind=lambda site: partial(run_soak, site.bench), is_default=False),
}


def chosen_suites(asked: Sequence[str]) -> list[str]:
    """The suites to run, in their order: those asked for and what belongs beside them; without any, the default."""
    if not asked:
        return [name for name, suite in SUITES.items() if suite.is_default]
    wanted = {*asked, *(other for name in asked for other in SUITES[name].beside)}
    return [name for name in SUITES if name in wanted]
