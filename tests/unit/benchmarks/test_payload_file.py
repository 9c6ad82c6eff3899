"""Payloads must come out as they went in, in order, and end when they end."""

from pathlib import Path

from benchmarks.payload_file import PayloadQueue, write_payloads

MESSAGES = [b"a", b"", b"c" * 70_000]
PAYLOADS = [b"\x00\x00\x00\x00\x01a", b"\x00\x00\x00\x00\x00", b"\x00\x00\x01\x11\x70" + MESSAGES[2]]


def _written(tmp_path: Path) -> bytes:
    path = tmp_path / "payloads"
    assert write_payloads(path, MESSAGES) == 3
    return path.read_bytes()


def test_payloads_come_out_in_order_and_end(tmp_path: Path) -> None:
    queue = PayloadQueue(_written(tmp_path), cycles=False)
    assert len(queue) == 3
    assert [queue.take() for _ in range(4)] == [*PAYLOADS, None]
    assert queue.handed_out == 3


def test_a_cycling_queue_begins_again(tmp_path: Path) -> None:
    queue = PayloadQueue(_written(tmp_path), cycles=True)
    assert [queue.take() for _ in range(5)] == [*PAYLOADS, *PAYLOADS[:2]]


def test_an_empty_queue_never_cycles() -> None:
    assert PayloadQueue(b"", cycles=True).take() is None
