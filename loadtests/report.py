"""The figures of a run for people, and what forbids to pass it."""

from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from loadtests.audit import Audit
from loadtests.scene import Scene
from loadtests.tally import OperationTally, SceneTally

ACHIEVED_SHARE_MIN: Final = 0.95


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """One run of a scene.

    Args:
        scene: what was played.
        seconds: measured time as asked.
        tally: of all generators.
        audit: of the core's books.
    """

    scene: Scene
    seconds: float
    tally: SceneTally
    audit: Audit

    @property
    def attempted_per_s(self) -> float:
        """Planned arrivals per second."""
        return self.tally.total.attempted / self.seconds

    @property
    def achieved_per_s(self) -> float:
        """Answers per second until the last one."""
        return self.tally.total.answered / self.tally.measured_s

    def problems(self) -> tuple[str, ...]:
        """Why the run is not passed; empty when it is."""
        found = list(self.audit.problems)
        if failed := self.tally.total.failures.total() + self.tally.warmup_failures:
            found.append(f"{failed:,} operations failed")
        # A run without a single operation shows nothing.
        if not self.attempted_per_s:
            found.append("nothing was attempted")
        elif self.achieved_per_s < ACHIEVED_SHARE_MIN * self.attempted_per_s:
            found.append(f"achieved less than {ACHIEVED_SHARE_MIN:.0%} of the attempted rate")
        return tuple(found)

    def print(self, console: Console) -> None:
        """Prints table, books and verdict."""
        console.print(self._table())
        if self.scene.left_out:
            shares = self.scene.left_out_shares
            names = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
            console.print(f"left out, no RPC yet: {sum(shares.values()):.1%} of the model ({names})")
        late = self.tally.starts_late
        console.print(
            f"attempted {self.attempted_per_s:,.1f}/s, achieved {self.achieved_per_s:,.1f}/s, "
            f"{self.attempted_per_s / self.scene.full_rate:.0%} of the province's {self.scene.title}; generators: "
            f"{self.tally.cpu_s:.1f} s CPU, starts late by p50 {late.percentile_ms(50):.1f} ms, "
            f"p99 {late.percentile_ms(99):.1f} ms"
        )
        if not self.audit.problems:
            console.print(
                f"books: clean; all {self.audit.acknowledged:,} acknowledged operations are there once"
            )
        problems = self.problems()
        for problem in problems:
            console.print(f"[bold red]problem[/] {problem}")
        console.print(f"verdict: {'FAILED' if problems else 'passed'}")

    def _table(self) -> Table:
        table = Table(
            title=f"{self.scene.title}: latency from the intended start, in ms", title_justify="left"
        )
        table.add_column("operation")
        for heading in ("attempted/s", "achieved/s", "p50", "p99", "failures", "declines"):
            table.add_column(heading, justify="right")
        table.add_column("names")
        for name in self.scene.rates:
            self._add_row(table, name, self.tally.operations[name])
        table.add_section()
        self._add_row(table, "all", self.tally.total)
        return table

    def _add_row(self, table: Table, name: str, tally: OperationTally) -> None:
        names = tally.failures + tally.declines
        table.add_row(
            name,
            f"{tally.attempted / self.seconds:,.1f}",
            f"{tally.answered / self.tally.measured_s:,.1f}",
            f"{tally.latencies.percentile_ms(50):,.1f}",
            f"{tally.latencies.percentile_ms(99):,.1f}",
            f"{tally.failures.total():,}",
            f"{tally.declines.total():,}",
            ", ".join(f"{text} ×{count:,}" for text, count in names.most_common()),
        )
