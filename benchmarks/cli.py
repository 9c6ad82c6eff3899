"""``onecard bench``: runs the suites in turns, prints tables, writes the result file."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from benchmarks.core_process import BenchCore, CoreError, bench_core
from benchmarks.cpu_accounting import cores
from benchmarks.generator_process import GeneratorError
from benchmarks.machine import describe_commit, describe_machine, describe_versions
from benchmarks.report import Repeat, failures, result_file
from benchmarks.report_table import print_report
from benchmarks.suite_core import CoreSuites
from benchmarks.suite_crypto import run_crypto
from benchmarks.suite_echo import run_echo
from benchmarks.suite_pgbench import run_pgbench
from benchmarks.suite_result import SuiteResult, SuiteSettings
from benchmarks.worker_spread import SpreadError

SUITES: Final = ("echo", "unary", "frames", "pgbench", "crypto")
_NEED_CORE: Final = frozenset({"unary", "frames", "pgbench"})
_NEED_CARDS: Final = frozenset({"unary", "frames"})
_LOG_WIDTH: Final = 110
_ROOT: Final = Path(__file__).parent.parent

Runner = Callable[[], SuiteResult]


def _runners(
    suites: Sequence[str], settings: SuiteSettings, core: BenchCore | None, loads: CoreSuites | None
) -> dict[str, Runner]:
    """What to call for each suite. Neighbours in this order are compared with each other."""
    runners: dict[str, Runner] = {
        "echo": lambda: run_echo(settings),
        "crypto": lambda: run_crypto(seconds=settings.seconds),
    }
    if loads is not None:
        runners |= {"unary": loads.run_unary, "frames": loads.run_frames}
    if core is not None:
        target = core.pgbench_target()
        runners["pgbench"] = lambda: run_pgbench(target, seconds=settings.seconds)
    return {name: runners[name] for name in suites}


def run_suites(
    suites: Sequence[str],
    settings: SuiteSettings,
    *,
    repeats: int,
    parent_dir: Path | None,
    console: Console,
) -> list[Repeat]:
    """Runs every suite once per repeat, in turns, on one core and its cards.

    Args:
        suites: names out of ``SUITES``.
        settings: for all of them.
        repeats: how often.
        parent_dir: where the core keeps its data; None is the place for temporary files.
        console: where progress is told.
    """
    with contextlib.ExitStack() as stack:
        core = loads = None
        if _NEED_CORE & set(suites):
            console.print("starting a core …")
            core = stack.enter_context(bench_core(workers=settings.workers, parent_dir=parent_dir))
        if core is not None and _NEED_CARDS & set(suites):
            console.print(f"issuing {settings.cards:,} cards …")
            # Imported here: echo and crypto need none of the server's capabilities.
            from benchmarks.core_cards import prepare_cards

            operations = prepare_cards(core, count=settings.cards, seed=settings.seed)
            loads = CoreSuites(core, operations, settings)
        runners = _runners(suites, settings, core, loads)
        done: list[Repeat] = []
        for number in range(1, repeats + 1):
            repeat = {}
            for name, runner in runners.items():
                console.print(f"{name} ({number} of {repeats}) …")
                repeat[name] = runner()
            done.append(repeat)
        return done


@click.command("bench")
@click.argument("suites", nargs=-1, type=click.Choice(SUITES))
@click.option("--seconds", type=click.FloatRange(min=0.5), default=10.0, show_default=True, help="Per suite.")
@click.option(
    "--warmup", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Seconds before."
)
@click.option("--workers", type=click.IntRange(1, 64), default=cores(), show_default="the cores")
@click.option("--connections", type=click.IntRange(1, 1_000), default=8, show_default=True)
@click.option(
    "--in-flight",
    type=click.IntRange(1, 1_000),
    default=64,
    show_default=True,
    help="Unary calls in flight per connection.",
)
@click.option(
    "--frame", type=click.IntRange(1, 512), default=256, show_default=True, help="Operations per frame."
)
@click.option(
    "--frames-in-flight",
    type=click.IntRange(1, 8),
    default=2,
    show_default=True,
    help="Frames in flight per stream.",
)
@click.option("--cards", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=1, show_default=True, help="Rounds of all suites."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of cards, amounts and random choices.")
@click.option(
    "--data-parent",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Directory for the core's data; must lie on a real disk. Default: that of temporary files.",
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Result file.")
def bench(
    suites: tuple[str, ...],
    seconds: float,
    warmup: float,
    workers: int,
    connections: int,
    in_flight: int,
    frame: int,
    frames_in_flight: int,
    cards: int,
    repeat: int,
    seed: int,
    data_parent: Path | None,
    json_path: Path | None,
) -> None:
    """Measure this core beside its baselines on this machine.

    echo: a bare grpc.aio server. unary, frames: durable purchases with chip. pgbench: PostgreSQL's TPC-B on
    the same server. crypto: cryptograms, PIN blocks and DUKPT against pyemv, psec and the straight way, and
    through a token. Without names, all of them.

    Exit code 1 when a figure must not be used: an operation without an outcome, or books that disagree.
    """
    settings = SuiteSettings(
        seconds=seconds,
        warmup_s=warmup,
        workers=workers,
        connections=connections,
        in_flight=in_flight,
        frame=frame,
        frames_in_flight=frames_in_flight,
        cards=cards,
        seed=seed,
    )
    # Outside a terminal, a log file for instance, rich would squeeze the tables into 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=_LOG_WIDTH)
    chosen = tuple(dict.fromkeys(suites)) or SUITES
    context = {
        "command": ["onecard", "bench", *sys.argv[2:]],
        "settings": asdict(settings),
        "machine": describe_machine(data_parent or Path(tempfile.gettempdir())),
        "versions": describe_versions(),
        **describe_commit(_ROOT),
    }
    try:
        repeats = run_suites(chosen, settings, repeats=repeat, parent_dir=data_parent, console=console)
    except (CoreError, GeneratorError, SpreadError, ChildProcessError) as error:
        raise click.ClickException(str(error)) from error
    print_report(repeats, console)
    if json_path is not None:
        text = json.dumps(result_file(repeats, context=context), indent=2, ensure_ascii=False)
        json_path.write_text(text + "\n", encoding="utf-8")
        console.print(f"written to {json_path}")
    if failures(repeats):
        raise click.exceptions.Exit(1)


def main(arguments: Sequence[str]) -> None:
    """Entry for the core's own command line, which hands its arguments on unread."""
    bench.main(args=list(arguments), prog_name="onecard bench")
