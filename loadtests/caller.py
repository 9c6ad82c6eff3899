"""The Locust user: takes the next arrival of the plan, waits for its time, and does it.

Users together are a bounded pool of greenlets behind one open-loop plan: when all of them are busy, arrivals wait, and
their wait is in their latency.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

import gevent  # type: ignore[import-untyped]
from gevent.event import Event  # type: ignore[import-untyped]
from locust import User, constant, task
from locust.exception import StopUser

from clients.chip_card import IssuerNotGenuineError
from clients.errors import OneCardCallError
from clients.pin_pad import PinPad
from loadtests.arrivals import Arrival
from loadtests.card_pool import CardPool, NoFreeCardError
from loadtests.core_calls import Acknowledgement, Calls
from loadtests.operations import Desk

DESKS_MAX: Final = 100_000


class ScenePlay:
    """What all callers of a process share.

    Args:
        arrivals: in order of time.
        connections: to the core; callers are spread over them.
        pool: the cards.
        pins: of the cards, by PAN.
        new_pad: a PIN pad for a desk, by its number.
        number: of the generator; part of its terminals' names.
        acknowledge: takes what the core has answered.
    """

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        *,
        connections: Sequence[Calls],
        pool: CardPool,
        pins: Mapping[str, str],
        new_pad: Callable[[int], PinPad],
        number: int,
        acknowledge: Callable[[Acknowledgement], None],
    ) -> None:
        self._plan = iter(arrivals)
        self._open = len(arrivals)
        self._connections = connections
        self._pool = pool
        self._pins = pins
        self._new_pad = new_pad
        self._number = number
        self._acknowledge = acknowledge
        self._desks = 0
        self.start_s = 0.0
        self.finished = Event()

    def next_arrival(self) -> Arrival | None:
        """The next of the plan, or None at its end."""
        return next(self._plan, None)

    def ended(self) -> None:
        """Notes that an arrival was done, one way or the other."""
        self._open -= 1
        if not self._open:
            self.finished.set()

    def new_desk(self) -> Desk:
        """A desk with a terminal of its own, for one caller."""
        self._desks += 1
        return Desk(
            self._connections[self._desks % len(self._connections)],
            self._pool,
            terminal_id=f"L{self._number:02d}{self._desks:05d}",
            # Pads of one generator differ by desk, those of two by the generator's number.
            pad=self._new_pad(self._number * DESKS_MAX + self._desks),
            pins=self._pins,
            rng=random.Random(self._desks),
            acknowledge=self._acknowledge,
        )


def failure_of(error: Exception) -> str:
    """The name under which a failure is counted."""
    if isinstance(error, OneCardCallError):
        return f"{error.code.name} {error.reason}".rstrip()
    return type(error).__name__


class Caller(User):
    """One greenlet that does one operation at a time."""

    play: ClassVar[ScenePlay]
    wait_time = constant(0)

    def on_start(self) -> None:
        self._desk = self.play.new_desk()

    @task
    def do_next(self) -> None:
        """Does the next arrival and tells Locust how it ended."""
        arrival = self.play.next_arrival()
        if arrival is None:
            raise StopUser
        intended_s = self.play.start_s + arrival.at_s
        gevent.sleep(max(0.0, intended_s - time.monotonic()))
        late_s = time.monotonic() - intended_s
        decline, error = "", None
        try:
            decline = self._desk.perform(arrival.operation)
        except (OneCardCallError, IssuerNotGenuineError, NoFreeCardError) as caught:
            error = caught
        self.environment.events.request.fire(
            request_type="gRPC",
            name=arrival.operation,
            # From the intended start, so that waiting behind a slow core is seen (coordinated omission).
            response_time=(time.monotonic() - intended_s) * 1000,
            response_length=0,
            exception=error,
            context={"measured": arrival.measured, "late_s": late_s, "decline": decline},
        )
        self.play.ended()
