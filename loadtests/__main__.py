"""``python -m loadtests``: one scene against a core of its own; exit code 0 only when the run is passed."""

import math
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from benchmarks.core_process import BenchCore, CoreError
from benchmarks.cpu_accounting import cores
from loadtests.audit import audit
from loadtests.generator_job import GeneratorJob
from loadtests.generator_processes import GeneratorError, run_generators
from loadtests.load_core import PARTICIPANT, load_core
from loadtests.operations import POSSIBLE
from loadtests.report import LoadReport
from loadtests.scene import Scene, ordinary_peak_minute

WARMUP_S: Final = 3.0
CONNECTIONS: Final = 8
CALLERS: Final = 200
# Each caller holds a card, and some lie lost or wait behind a code.
CARDS_PER_PROCESS_MIN: Final = 2 * CALLERS
_LOG_WIDTH: Final = 150


def make_jobs(
    scene: Scene, core: BenchCore, *, rate: float, seconds: float, cards: int, processes: int, folder: Path
) -> list[GeneratorJob]:
    """Divides rate and cards among the generators."""
    return [
        GeneratorJob(
            number=number,
            generators=processes,
            data_dir=core.data_dir,
            participant=PARTICIPANT,
            port=core.port,
            cards=cards,
            shares=scene.shares,
            rate_per_s=rate / processes,
            warmup_s=WARMUP_S,
            seconds=seconds,
            connections=max(1, math.ceil(CONNECTIONS / processes)),
            callers=CALLERS,
            acknowledgement_file=folder / f"acknowledged-{number}",
        )
        for number in range(processes)
    ]


@click.command("loadtests")
@click.option(
    "--rate", type=click.FloatRange(min=1), default=300.0, show_default=True, help="Operations per second."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1),
    default=30.0,
    show_default=True,
    help=f"Measured time, after a warm-up of {WARMUP_S:.0f}.",
)
@click.option("--cards", type=click.IntRange(min=CARDS_PER_PROCESS_MIN), default=5_000, show_default=True)
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Generators.")
def main(rate: float, seconds: float, cards: int, processes: int) -> None:
    """Play the ordinary peak minute against a core of its own, and check its books.

    Exit code 1 on a failure, books that disagree, or less than 95 % of the attempted rate.
    """
    if cards < CARDS_PER_PROCESS_MIN * processes:
        raise click.BadParameter(f"at least {CARDS_PER_PROCESS_MIN} for each process", param_hint="--cards")
    console = Console() if sys.stdout.isatty() else Console(width=_LOG_WIDTH)
    scene = ordinary_peak_minute(POSSIBLE)
    try:
        with tempfile.TemporaryDirectory(prefix="onecard-load-") as folder:
            console.print(f"starting a core with {cards:,} cards …")
            with load_core(workers=cores(), cards=cards) as core:
                jobs = make_jobs(
                    scene,
                    core,
                    rate=rate,
                    seconds=seconds,
                    cards=cards,
                    processes=processes,
                    folder=Path(folder),
                )
                console.print(f"{scene.title}: {rate:,.0f} operations/s for {seconds:,.0f} s …")
                tally = run_generators(jobs)
                books = audit(core, [job.acknowledgement_file for job in jobs])
    except (CoreError, GeneratorError) as error:
        raise click.ClickException(str(error)) from error
    report = LoadReport(scene=scene, seconds=seconds, tally=tally, audit=books)
    report.print(console)
    if report.problems():
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main(prog_name="python -m loadtests")
