"""Calls at times fixed by a rate, whatever the server does: an open loop, as independent terminals make it.

The clock of a call starts when it falls due, not when it is sent: a server that stalls is charged for every call that
had to wait behind the stall, which a closed loop would never have made (coordinated omission).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from benchmarks.payload_file import PayloadQueue


class CallLane(Protocol):
    """A connection that calls can be put on."""

    @property
    def has_room(self) -> bool:
        """True while it takes another call."""

    def call(self, payload: bytes, *, started_us: int) -> None:
        """Queues one call, whose clock has started."""

    def flush(self) -> None:
        """Sends what is queued."""


class Arrivals:
    """A Poisson process of calls over all connections in turn.

    Args:
        payloads: of the calls, in order.
        lanes: the connections.
        rate_per_s: mean calls per second.
        seed: of the times between them.
    """

    def __init__(
        self, payloads: PayloadQueue, lanes: Sequence[CallLane], *, rate_per_s: float, seed: int
    ) -> None:
        assert rate_per_s > 0, "an open loop has a rate"
        self._payloads: Final = payloads
        self._lanes: Final = deque(lanes)
        self._rate_per_us: Final = rate_per_s / 1e6
        self._rng: Final = random.Random(seed)
        self._due_us = 0.0

    def start(self, at_us: int) -> None:
        """Lets the first call fall due one random pause after ``at_us``."""
        self._due_us = at_us + self._pause_us()

    def send_due(self, at_us: int) -> None:
        """Sends what has fallen due; what finds no room waits, and its clock runs."""
        used: set[CallLane] = set()
        while self._due_us <= at_us:
            lane = self._next_lane()
            payload = self._payloads.take() if lane is not None else None
            if lane is None or payload is None:
                break
            lane.call(payload, started_us=int(self._due_us))
            used.add(lane)
            self._due_us += self._pause_us()
        for lane in used:
            lane.flush()

    def _next_lane(self) -> CallLane | None:
        for _ in self._lanes:
            self._lanes.rotate(-1)
            if self._lanes[-1].has_room:
                return self._lanes[-1]
        return None

    def _pause_us(self) -> float:
        return self._rng.expovariate(self._rate_per_us)
