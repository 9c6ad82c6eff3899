"""Suites of purchases in frames: at several sizes, at one merchant, with declines, and over a large base of cards."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Final

from benchmarks.operations import Mix
from benchmarks.suite_core import CoreBench, Load
from benchmarks.suite_result import SuiteResult, SuiteSettings

FRAMES_PER_STREAM_MAX: Final = 8
DECLINED_SHARE: Final = 0.2


def frames_load(suite: str, settings: SuiteSettings, *, frame: int) -> Load:
    """Purchases spread over merchants and acquirers.

    At every size as many operations are in flight as at the settings' own: what differs is the frame alone.

    Args:
        suite: its name.
        settings: connections, and frames in flight at the usual size.
        frame: operations per frame, 1 to 512.
    """
    per_connection = max(1, round(settings.frame * settings.frames_in_flight / frame))
    streams = ceil(per_connection / FRAMES_PER_STREAM_MAX)
    return Load(
        suite=suite,
        kind="frames",
        frame=frame,
        connections=settings.connections,
        streams=streams,
        in_flight=ceil(per_connection / streams),
    )


def run_frames(bench: CoreBench, *, suite: str = "frames", frame: int | None = None) -> SuiteResult:
    """Frames of one size; None is that of the settings."""
    return bench.run(frames_load(suite, bench.settings, frame=frame or bench.settings.frame))


def run_hot(bench: CoreBench) -> SuiteResult:
    """All purchases at one merchant, and all money to one settlement account."""
    load = frames_load("hot", bench.settings, frame=bench.settings.frame)
    return bench.run(replace(load, mix=Mix(one_merchant=True), one_acquirer=True))


def run_declines(bench: CoreBench) -> SuiteResult:
    """A fifth of the purchases declined: no money, a wrong cryptogram, more than a card may spend at once."""
    load = frames_load("declines", bench.settings, frame=bench.settings.frame)
    return bench.run(replace(load, mix=Mix(declined_share=DECLINED_SHARE)))


def run_cards(bench: CoreBench) -> SuiteResult:
    """Random cards of a large base: what ``frames`` does on the small one."""
    result = run_frames(bench, suite="cards")
    base = bench.base
    loaded = {
        "load_s": base.load_s,
        "loaded_cards_per_s": base.cards / base.load_s,
        "disk_bytes": base.disk_bytes,
        "cards_with_purchases": bench.operations.cards,
    }
    return replace(result, facts={**result.facts, **loaded})
