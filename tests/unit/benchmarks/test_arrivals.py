"""An open loop must keep its rate whatever the server does, and charge the server for every wait."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.arrivals import Arrivals
from benchmarks.payload_file import PayloadQueue, write_payloads


@dataclass(eq=False)
class Lane:
    """Keeps what was put on it."""

    has_room: bool = True
    started_us: list[int] = field(default_factory=list)
    flushed: int = 0

    def call(self, payload: bytes, *, started_us: int) -> None:
        self.started_us.append(started_us)

    def flush(self) -> None:
        self.flushed += 1


def _payloads(tmp_path: Path, count: int) -> PayloadQueue:
    path = tmp_path / "payloads"
    write_payloads(path, [b"x"] * count)
    return PayloadQueue(path.read_bytes(), cycles=False)


def test_calls_come_at_the_rate_and_go_to_all_connections(tmp_path: Path) -> None:
    lanes = [Lane(), Lane(), Lane()]
    arrivals = Arrivals(_payloads(tmp_path, 3_000), lanes, rate_per_s=1_000, seed=1)
    arrivals.start(0)
    for at_us in range(0, 1_000_000, 500):
        arrivals.send_due(at_us)
        assert all(started_us <= at_us for lane in lanes for started_us in lane.started_us[-1:])
    sent = [len(lane.started_us) for lane in lanes]
    assert sum(sent) == pytest.approx(1_000, abs=100)
    assert max(sent) - min(sent) <= 1


def test_a_call_that_finds_no_room_keeps_the_time_at_which_it_fell_due(tmp_path: Path) -> None:
    lane = Lane(has_room=False)
    arrivals = Arrivals(_payloads(tmp_path, 100), [lane], rate_per_s=1_000, seed=1)
    arrivals.start(0)
    arrivals.send_due(20_000)
    assert (lane.started_us, lane.flushed) == ([], 0)
    lane.has_room = True
    arrivals.send_due(20_000)
    assert len(lane.started_us) == pytest.approx(20, abs=15)
    assert lane.started_us[0] < 10_000
    assert lane.flushed == 1


def test_no_call_comes_twice(tmp_path: Path) -> None:
    lane = Lane()
    arrivals = Arrivals(_payloads(tmp_path, 5), [lane], rate_per_s=1_000, seed=1)
    arrivals.start(0)
    arrivals.send_due(10_000_000)
    assert len(lane.started_us) == 5
