"""The same figures for people: rates, CPU, ratios, and what single suites have beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.report import Repeat, failures, latencies, rates, ratios
from benchmarks.suite_result import SuiteResult


def print_report(repeats: Sequence[Repeat], console: Console) -> None:
    """Prints every table that has something to say, and last what forbids to use the figures."""
    _print_rates(repeats, console)
    _print_ratios(repeats, console)
    _print_cards(repeats, console)
    _print_memory(repeats, console)
    _print_crypto(repeats, console)
    for failure in failures(repeats):
        console.print(f"[bold red]not usable[/] {failure}")


def _print_rates(repeats: Sequence[Repeat], console: Console) -> None:
    last, medians = _last_results(repeats), latencies(repeats)
    shown = {name: figures for name, figures in rates(repeats).items() if last[name].unit != "checks"}
    table = _table("Rates and latencies: medians of the repeats; counts are the last one's")
    for heading in ("per second", "min … max", "p50 ms", "p99 ms", "p99.9 ms", "errors", "approved"):
        table.add_column(heading, justify="right")
    for name, figures in shown.items():
        result = last[name]
        table.add_row(
            name,
            f"{figures['median']:,.0f}",
            f"{figures['min']:,.0f} … {figures['max']:,.0f}" if len(repeats) > 1 else "",
            *(_ms(medians[name].get(percentile)) for percentile in ("p50", "p99", "p99.9")),
            f"{sum(result.errors.values()):,}",
            f"{result.approved:,}" if result.approved else "",
        )
    if shown:
        console.print(table)
        console.print(_cpu_table([last[name] for name in shown]))


def _cpu_table(results: Sequence[SuiteResult]) -> Table:
    table = _table("CPU: seconds, and share of the whole machine")
    for heading in ("generator", "workers", "PostgreSQL", "worker µs each", "generator µs each"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            result.suite,
            *(_share(result, group) for group in ("generator", "workers", "postgresql")),
            _us(result.worker_us_per_operation),
            _us(result.facts.get("generator_us_per_operation")),
        )
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("suite")
    return table


def _print_ratios(repeats: Sequence[Repeat], console: Console) -> None:
    found = ratios(repeats)
    if not found:
        return
    table = Table(title="Ratios, each within one repeat", title_justify="left")
    for heading in ("ratio", "median", "min … max"):
        table.add_column(heading, justify="left" if heading == "ratio" else "right")
    for name, figures in found.items():
        table.add_row(name, f"{figures['median']:.2f}", f"{figures['min']:.2f} … {figures['max']:.2f}")
    console.print(table)


def _print_cards(repeats: Sequence[Repeat], console: Console) -> None:
    result = _last_results(repeats).get("cards")
    if result is None:
        return
    facts = result.facts
    console.print(
        f"cards: {facts['cards']:,} loaded in {facts['load_s']:,.0f} s"
        f" ({facts['loaded_cards_per_s']:,.0f} a second), {facts['disk_bytes'] / 2**30:.1f} GiB;"
        f" purchases with {facts['cards_with_purchases']:,} of them"
    )


def _print_memory(repeats: Sequence[Repeat], console: Console) -> None:
    result = _last_results(repeats).get("soak")
    if result is None:
        return
    table = Table(
        title=f"Memory over {result.seconds:,.0f} s: PSS without shared buffers", title_justify="left"
    )
    for heading in ("process", "first MiB", "last MiB", "MiB a minute at last", ""):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    for group, memory in result.facts["memory"].items():
        table.add_row(
            group,
            f"{memory['first_mib']:,.1f}",
            f"{memory['last_mib']:,.1f}",
            f"{memory['slope_mib_per_min']:+,.2f}",
            "flat" if memory["flat"] else "not flat",
        )
    console.print(table)


def _print_crypto(repeats: Sequence[Repeat], console: Console) -> None:
    result = _last_results(repeats).get("crypto")
    if result is None:
        return
    batch = result.facts["batch"]
    table = Table(title=f"Card cryptography, CPU of one core; in batches of {batch}", title_justify="left")
    for heading in ("what", "µs each", "per second"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, us in result.facts["us_each"].items():
        table.add_row(name, f"{us:.1f}", f"{1e6 / us:,.0f}")
    console.print(table)
    table = Table(title="Times as fast as the baseline", title_justify="left")
    for heading in ("what", "times"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, times in result.facts["ratios"].items():
        table.add_row(name, f"{times:.2f}")
    console.print(table)
    console.print(f"pkcs11: {result.facts['pkcs11']}")


def _last_results(repeats: Sequence[Repeat]) -> dict[str, SuiteResult]:
    return {name: result for repeat in repeats for name, result in repeat.items()}


def _ms(figures: Mapping[str, float] | None) -> str:
    if figures is None:
        return ""
    value = figures["median"]
    return f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"


def _share(result: SuiteResult, group: str) -> str:
    use = result.cpu.get(group)
    return "" if use is None else f"{use.seconds:.1f} s {use.machine_share:.0%}"


def _us(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
