"""Flat must mean flat: growth in the later half is told, a cache that fills at first is not."""

import os

from benchmarks.memory_watch import Memory, MemoryWatch, parse_smaps_rollup, process_memory, trend

MIB = 1 << 20
ROLLUP = """55e2f2cd1000-7fff487ae000 ---p 00000000 00:00 0                          [rollup]
Rss:                1728 kB
Pss:                 258 kB
Pss_Shmem:            58 kB
"""


def test_rollup_is_read_in_bytes_without_shared_memory() -> None:
    memory = parse_smaps_rollup(ROLLUP)
    assert memory == Memory(rss=1728 << 10, pss=258 << 10, pss_shared=58 << 10)
    assert memory.own == 200 << 10
    assert parse_smaps_rollup("") == Memory()


def test_what_fills_at_first_and_then_stays_is_flat() -> None:
    samples = [(5.0 * n, (50 + min(n, 20)) * MIB) for n in range(60)]
    found = trend(samples)
    assert (found.first, found.last, found.flat) == (50 * MIB, 70 * MIB, True)
    assert abs(found.bytes_per_min) < 1


def test_what_grows_by_a_hundredth_a_minute_is_not_flat() -> None:
    found = trend([(5.0 * n, 100 * MIB + n * MIB // 12) for n in range(120)])
    assert round(found.bytes_per_min / MIB, 2) == 1.0
    assert not found.flat


def test_a_process_that_comes_for_a_moment_is_no_growth() -> None:
    sizes = [100 * MIB] * 119 + [150 * MIB]
    assert trend([(5.0 * n, size) for n, size in enumerate(sizes)]).bytes_per_min == 0


def test_what_shrinks_or_was_seen_once_is_flat() -> None:
    assert trend([(5.0 * n, 100 * MIB - n * MIB) for n in range(20)]).flat
    assert trend([(0.0, MIB)]).flat


def test_a_watch_samples_processes_and_trees() -> None:
    with MemoryWatch({"own": [os.getpid()]}, {"tree": os.getpid()}) as watch:
        pass
    facts = watch.facts()
    assert set(facts) == {"own", "tree"}
    assert facts["own"]["first_mib"] > 1
    assert facts["own"]["rss_mib"][0] >= facts["own"]["first_mib"]
    assert process_memory(2**22 + 1) == Memory()
