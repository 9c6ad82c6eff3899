"""What is read from the system and from pgbench, and what the report makes of it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cpu_accounting import parse_stat
from benchmarks.generator_job import GeneratorJob, GeneratorResult, TlsFiles
from benchmarks.machine import file_system_of
from benchmarks.operations import Mix
from benchmarks.report import failures, latencies, ratios, result_file
from benchmarks.suite_core import check_books, check_declines
from benchmarks.suite_frames import frames_load
from benchmarks.suite_pgbench import parse_output
from benchmarks.suite_result import SuiteResult, SuiteSettings
from benchmarks.suite_unary import check_kept_up, soak_cards
from benchmarks.suites import SUITES, chosen_suites
from benchmarks.tally import Tally
from benchmarks.worker_spread import SpreadError, connect_evenly, parse_tcp_table

PGBENCH_OUTPUT = """transaction type: <builtin: TPC-B (sort of)>
query mode: prepared
number of transactions actually processed: 51234
number of failed transactions: 0 (0.000%)
latency average = 1.561 ms
tps = 5123.400000 (without initial connection time)
"""
TCP_TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1
   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 101 1
   2: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 102 1
"""

SETTINGS = SuiteSettings(
    seconds=1,
    warmup_s=0,
    workers=1,
    connections=8,
    in_flight=1,
    frame=256,
    frames_in_flight=2,
    cards=1,
    cards_large=1,
    soak_s=1,
    soak_rate_per_s=1,
    seed=1,
)


def _result(suite: str, rate_per_s: float, worker_us: float | None = None, **parts: object) -> SuiteResult:
    return SuiteResult(
        suite=suite,
        unit="calls",
        rate_per_s=rate_per_s,
        seconds=1,
        worker_us_per_operation=worker_us,
        **parts,  # type: ignore[arg-type]
    )


def test_a_command_name_with_brackets_does_not_shift_the_clocks() -> None:
    fields = "S 42 1 1 0 -1 4194304 0 0 0 0 250 50 7 3 20 0 1 0 0 0 0"
    stat = parse_stat(f"7 (a) b) {fields}")
    assert (stat.parent_pid, stat.own_ticks, stat.ended_children_ticks) == (42, 300, 10)


def test_pgbench_output_is_read() -> None:
    assert parse_output(PGBENCH_OUTPUT) == (5123.4, 1.561, 51234, 0)


def test_pgbench_without_result_is_refused() -> None:
    with pytest.raises(ValueError, match="no result"):
        parse_output("pgbench: error")


def test_only_accepted_connections_of_the_port_are_seen() -> None:
    assert parse_tcp_table(TCP_TABLE, server_port=0x1F90) == {"101": 0xC001}


def test_a_worker_that_accepts_nothing_ends_the_search() -> None:
    class Opened:
        closed = False

        def getsockname(self) -> tuple[str, int]:
            return ("127.0.0.1", 1)

        def close(self) -> None:
            self.closed = True

    opened: list[Opened] = []

    def connect() -> Opened:
        opened.append(Opened())
        return opened[-1]

    with pytest.raises(SpreadError):
        connect_evenly(connect, connections=2, pids=[os.getpid()], server_port=1)
    assert all(connection.closed for connection in opened)


def test_the_file_system_is_that_of_the_deepest_mount() -> None:
    mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n"
    assert file_system_of(Path("/tmp/x"), mounts) == "tmpfs"  # noqa: S108
    assert file_system_of(Path("/tmpx"), mounts) == "ext4"  # noqa: S108


def test_latencies_are_medians_over_the_repeats() -> None:
    repeats = [{"idle": _result("idle", 1, latency_ms={"p50": ms})} for ms in (1.0, 5.0, 2.0)]
    assert latencies(repeats) == {"idle": {"p50": {"median": 2.0, "min": 1.0, "max": 5.0}}}
    assert ratios([repeats[0] | {"echo-idle": _result("echo-idle", 1, latency_ms={"p50": 0.5})}]) == {
        "idle/echo-idle, p50": {"median": 2.0, "min": 2.0, "max": 2.0}
    }


def test_ratios_are_taken_within_a_repeat() -> None:
    repeats = [
        {"echo": _result("echo", 10_000, 100), "unary": _result("unary", 5_000, 200)},
        {"echo": _result("echo", 5_000, 100), "unary": _result("unary", 4_000, 300)},
        {"echo": _result("echo", 9_000, 100)},
    ]
    found = ratios(repeats)
    assert found["unary/echo, saturated rate"] == {"median": pytest.approx(0.65), "min": 0.5, "max": 0.8}
    assert found["unary/echo, worker CPU per call"]["median"] == 2.5
    assert "frames/pgbench, rate" not in found


def test_failures_name_suite_and_repeat() -> None:
    repeats = [{"unary": _result("unary", 1, failures=("3 approvals acknowledged, 2 stored",))}]
    assert failures(repeats) == ["unary, repeat 1: 3 approvals acknowledged, 2 stored"]
    assert result_file(repeats, context={"commit": "abc"})["failures"] == failures(repeats)


def test_books_that_disagree_forbid_the_figure() -> None:
    assert check_books(acknowledged=5, stored=5, disagreement=None) == []
    assert check_books(acknowledged=5, stored=4, disagreement="sum is 1") == [
        "5 approvals acknowledged, 4 stored",
        "reconcile: sum is 1",
    ]


def test_other_declines_than_were_meant_forbid_the_figure() -> None:
    assert check_declines({}, answered=100, approved=99, mix=Mix()) == []
    assert check_declines({}, answered=100, approved=98, mix=Mix()) == [
        "98 of 100 operations were approved, 100% were meant to"
    ]
    fifth = Mix(declined_share=0.21)
    even = {"51": 70, "05": 71, "61": 69}
    assert check_declines(even, answered=1_000, approved=790, mix=fifth) == []
    assert check_declines({"51": 140, "05": 70}, answered=1_000, approved=790, mix=fifth) == [
        "140 operations were declined with 51, about 70 were meant to",
        "0 operations were declined with 61, about 70 were meant to",
    ]


def test_a_core_that_falls_behind_the_rate_forbids_the_figure() -> None:
    assert check_kept_up(_result("soak", 99), asked_per_s=100).failures == ()
    assert check_kept_up(_result("soak", 90), asked_per_s=100).failures == (
        "90 of 100 calls a second were answered",
    )


@pytest.mark.parametrize(
    ("seconds", "rate_per_s", "cards"), [(600, 1_500, 20_000), (70, 100, 250), (1, 1, 1)]
)
def test_a_short_soak_uses_so_few_cards_that_caches_are_full_at_half_time(
    seconds: float, rate_per_s: float, cards: int
) -> None:
    settings = replace(SETTINGS, soak_s=seconds, soak_rate_per_s=rate_per_s, workers=2)
    assert soak_cards(settings) == cards


@pytest.mark.parametrize(
    ("frame", "streams", "in_flight"), [(16, 4, 8), (64, 1, 8), (256, 1, 2), (512, 1, 1), (100, 1, 5)]
)
def test_every_size_of_frame_has_as_many_operations_in_flight(
    frame: int, streams: int, in_flight: int
) -> None:
    load = frames_load("frames", SETTINGS, frame=frame)
    assert (load.streams, load.in_flight) == (streams, in_flight)


def test_suites_bring_what_belongs_beside_them_in_their_own_order() -> None:
    assert chosen_suites(["declines", "hot", "idle"]) == ["echo-idle", "idle", "frames", "hot", "declines"]
    assert chosen_suites(["frames", "frames"]) == ["frames"]
    assert not {"cards", "soak"} & set(chosen_suites([]))
    assert all(other in SUITES for suite in SUITES.values() for other in suite.beside)


def test_job_and_result_survive_the_pipe() -> None:
    tls = TlsFiles(ca=Path("ca"), certificate=Path("c"), key=Path("k"))
    job = GeneratorJob(
        kind="frames", port=1, method="/a/b", tls=(tls, tls), payload_file=Path("p"), worker_pids=(1, 2)
    )
    assert GeneratorJob.from_json(job.to_json()) == job
    measured = Tally(answered=3, approved=2)
    measured.latencies.record(500)
    result = GeneratorResult(
        seconds=1.0,
        exhausted=False,
        cpu_s=0.5,
        measured=measured,
        whole=Tally(errors=measured.errors),
        connections_per_worker={7: 2},
    )
    returned = GeneratorResult.from_json(result.to_json())
    assert returned.measured.latencies.buckets == measured.latencies.buckets
    assert returned.connections_per_worker == {7: 2}
    assert returned.measured.answered == 3
