"""``onecard bench``: runs the suites in turns, prints tables, writes the result file."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from benchmarks.core_process import CoreError
from benchmarks.cpu_accounting import cores
from benchmarks.generator_process import GeneratorError
from benchmarks.machine import describe_commit, describe_machine, describe_versions
from benchmarks.report import Repeat, failures, result_file
from benchmarks.report_table import print_report
from benchmarks.suite_result import SuiteSettings
from benchmarks.suites import SUITES, Site, chosen_suites
from benchmarks.worker_spread import SpreadError

_LOG_WIDTH: Final = 110
_ROOT: Final = Path(__file__).parent.parent


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
        suites: names out of ``SUITES``, in the order in which they run.
        settings: for all of them.
        repeats: how often.
        parent_dir: where cores keep their data; None is the place for temporary files.
        console: where progress is told.
    """
    with contextlib.ExitStack() as stack:
        site = Site(settings, parent_dir=parent_dir, stack=stack, console=console)
        runners = {name: SUITES[name].bind(site) for name in suites}
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
    "--warmup",
    "warmup_s",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="Seconds before.",
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
    "--cards-large",
    type=click.IntRange(min=1),
    default=10_000_000,
    show_default=True,
    help="Cards of the second core, for suite cards.",
)
@click.option("--soak-seconds", "soak_s", type=click.FloatRange(min=1), default=600.0, show_default=True)
@click.option(
    "--soak-rate",
    "soak_rate_per_s",
    type=click.FloatRange(min=1),
    default=1_500.0,
    show_default=True,
    help="Calls per second.",
)
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
    repeat: int,
    data_parent: Path | None,
    json_path: Path | None,
    **flags: Any,
) -> None:
    """Measure this core beside its baselines on this machine.

    \b
    echo, echo-idle  a bare grpc.aio server: saturated; one call at a time
    unary, idle      durable purchases with chip, one per call: the same two loads
    half-load        unary calls at half of unary's rate, at random times
    frames           purchases in frames of --frame operations
    frames-16, -64, -512  in frames of other sizes
    hot              all at one merchant, to one settlement account
    declines         a fifth of the purchases declined
    pgbench          PostgreSQL's TPC-B on the same server
    crypto           cryptograms, PIN blocks and DUKPT beside pyemv, psec, the
                     straight way, and through a token

    Without names, all of these. By name only:

    \b
    cards            frames on a second core with --cards-large cards
    soak             unary calls at --soak-rate for --soak-seconds: memory

    Exit code 1 when a figure must not be used: an operation without an outcome, or books that disagree.
    """
    settings = SuiteSettings(**flags)
    # Outside a terminal, a log file for instance, rich would squeeze the tables into 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=_LOG_WIDTH)
    context = {
        "command": ["onecard", "bench", *sys.argv[2:]],
        "settings": asdict(settings),
        "machine": describe_machine(data_parent or Path(tempfile.gettempdir())),
        "versions": describe_versions(),
        **describe_commit(_ROOT),
    }
    try:
        repeats = run_suites(
            chosen_suites(suites), settings, repeats=repeat, parent_dir=data_parent, console=console
        )
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
