"""The generator process, ``python -m benchmarks.generator``: a job on stdin, events and a result on stdout.

A process of its own, so that its CPU is told apart from the server's. Without a rate it is a closed loop: the number of
calls in flight is fixed, a slow server is asked less often, and the latencies are those of a saturated server. With a
rate, calls come when they fall due: see ``arrivals``.
"""

from __future__ import annotations

import gc
import itertools
import resource
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from onecard.v1 import authorization_pb2 as pb

from benchmarks import http2_frames as h2
from benchmarks.arrivals import Arrivals
from benchmarks.frame_lane import FrameLane
from benchmarks.generator_job import GeneratorJob, GeneratorResult, TlsFiles
from benchmarks.http2_connection import now_us
from benchmarks.payload_file import PayloadQueue
from benchmarks.tally import Tally
from benchmarks.unary_lane import UnaryLane
from benchmarks.worker_spread import connect_evenly

STARTED: Final = "started"
STOPPED: Final = "stopped"

_CONNECT_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05
_DRAIN_S_MAX: Final = 15.0

Lane = UnaryLane | FrameLane


@dataclass
class _Phase:
    """Counts of one stretch of time. Frames are decoded when the run is over."""

    tally: Tally = field(default_factory=Tally)
    answers: list[bytes] = field(default_factory=list)


def client_context(tls: TlsFiles) -> ssl.SSLContext:
    """A TLS context with the client's certificate that speaks HTTP/2 only."""
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.load_cert_chain(tls.certificate, tls.key)
    context.set_alpn_protocols(["h2"])
    return context


def connector(job: GeneratorJob) -> Callable[[], ssl.SSLSocket]:
    """Returns a function that opens one connection, the next owner's, and waits for its handshake."""
    owners = itertools.cycle([(client_context(files), files.server_name) for files in job.tls])

    def connect() -> ssl.SSLSocket:
        context, server_name = next(owners)
        plain = socket.create_connection(("127.0.0.1", job.port), timeout=_CONNECT_TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secured = context.wrap_socket(plain, server_hostname=server_name)
        if secured.selected_alpn_protocol() != "h2":
            raise h2.Http2Error("the server does not speak HTTP/2")
        return secured

    return connect


def decode_frames(phase: _Phase) -> None:
    """Counts the results of a phase's frames, each by its own outcome."""
    for answer in phase.answers:
        for result in pb.AuthorizeStreamResponse.FromString(answer).results:
            if result.WhichOneof("outcome") != "response":
                phase.tally.errors[result.error.reason] += 1
                continue
            phase.tally.answered += 1
            if result.response.response_code == "00":
                phase.tally.approved += 1
            else:
                phase.tally.declines[result.response.response_code] += 1
    phase.answers.clear()


class Generator:
    """Drives all lanes from one thread."""

    def __init__(self, job: GeneratorJob) -> None:
        """Reads the payloads and opens the connections."""
        self._job: Final = job
        self._payloads: Final = PayloadQueue(job.payload_file.read_bytes(), cycles=job.cycles)
        sockets, spread = connect_evenly(
            connector(job), connections=job.connections, pids=job.worker_pids, server_port=job.port
        )
        self.spread: Final = spread
        self._block: Final = h2.encode_request_block(
            path=job.method, authority=f"{job.tls[0].server_name}:{job.port}"
        )
        self._lanes: Final[list[Lane]] = [self._lane(opened) for opened in sockets]
        self._arrivals: Final = self._open_loop()
        self._by_descriptor: Final = {lane.socket.fileno(): lane for lane in self._lanes}
        self._next_turn_us = 0
        self._epoll: Final = select.epoll()
        self._interest: Final = dict.fromkeys(self._by_descriptor, select.EPOLLIN)
        for descriptor in self._by_descriptor:
            self._epoll.register(descriptor, select.EPOLLIN)

    @property
    def exhausted(self) -> bool:
        """True when every payload was handed out and may not be sent again."""
        return not self._job.cycles and self._payloads.handed_out >= len(self._payloads)

    @property
    def outstanding(self) -> int:
        """Calls or frames without an answer."""
        return sum(lane.outstanding for lane in self._lanes)

    def begin(self) -> _Phase:
        """Starts a phase: what arrives from now on is counted there."""
        phase = _Phase()
        for lane in self._lanes:
            lane.tally = phase.tally
            if isinstance(lane, FrameLane):
                lane.answers = phase.answers
        return phase

    def start(self) -> None:
        """Sends the first calls or frames; of an open loop, lets the first fall due."""
        if self._arrivals is not None:
            self._arrivals.start(now_us())
            return
        for lane in self._lanes:
            lane.fill()

    def drive(self, *, until_us: int) -> None:
        """Sends as the job says until the given time, or until the payloads end."""
        while now_us() < until_us and not self.exhausted and self._alive():
            if self._arrivals is None:
                self._turn(refill=True)
            else:
                self._arrivals.send_due(now_us())
                self._turn(refill=False)

    def drain(self) -> None:
        """Sends nothing new and waits for the open answers, for a bounded time."""
        give_up_us = now_us() + int(_DRAIN_S_MAX * 1e6)
        while self.outstanding and now_us() < give_up_us and self._alive():
            self._turn(refill=False)

    def close(self) -> None:
        """Closes every connection."""
        for lane in self._lanes:
            lane.close()
        self._epoll.close()

    def _lane(self, opened: ssl.SSLSocket) -> Lane:
        if self._job.kind == "unary":
            return UnaryLane(
                opened, request_block=self._block, calls=self._payloads, in_flight=self._job.in_flight
            )
        return FrameLane(
            opened,
            request_block=self._block,
            frames=self._payloads,
            streams=self._job.streams,
            in_flight=self._job.in_flight,
        )

    def _open_loop(self) -> Arrivals | None:
        if self._job.rate_per_s is None:
            return None
        lanes = [lane for lane in self._lanes if isinstance(lane, UnaryLane)]
        assert len(lanes) == len(self._lanes), "only unary calls come at a rate"
        return Arrivals(self._payloads, lanes, rate_per_s=self._job.rate_per_s, seed=self._job.seed)

    def _alive(self) -> bool:
        return any(not lane.closed for lane in self._lanes)

    def _turn(self, *, refill: bool) -> None:
        rest_us = self._next_turn_us - now_us()
        if rest_us > 0:
            time.sleep(rest_us / 1e6)
        self._next_turn_us = now_us() + self._job.turn_us_min
        # Calls that fall due cannot wait for answers.
        for descriptor, _ in self._epoll.poll(_POLL_S if self._arrivals is None else 0):
            lane = self._by_descriptor[descriptor]
            lane.receive()
            if refill:
                lane.fill()
            elif isinstance(lane, FrameLane):
                lane.pump()
            else:
                lane.flush()
            self._watch(descriptor, lane)

    def _watch(self, descriptor: int, lane: Lane) -> None:
        # A lost connection has left the epoll set by itself when its socket was closed.
        if lane.closed:
            return
        interest = select.EPOLLIN | (select.EPOLLOUT if lane.wants_write else 0)
        if interest != self._interest[descriptor]:
            self._epoll.modify(descriptor, interest)
            self._interest[descriptor] = interest


def own_cpu_s() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def tell(event: str) -> None:
    """Tells the process that waits for us; it reads line by line."""
    sys.stdout.write(event + "\n")
    sys.stdout.flush()


def run(job: GeneratorJob) -> GeneratorResult:
    """Runs warm-up, measured time and drain."""
    generator = Generator(job)
    # No cycles are made on the hot path; a collection over a million payloads would be a pause of its own.
    gc.disable()
    warmup = generator.begin()
    generator.start()
    generator.drive(until_us=now_us() + int(job.warmup_s * 1e6))
    measured = generator.begin()
    tell(STARTED)
    started_us, started_cpu_s = now_us(), own_cpu_s()
    generator.drive(until_us=started_us + int(job.seconds * 1e6))
    stopped_us, stopped_cpu_s = now_us(), own_cpu_s()
    tell(STOPPED)
    exhausted = generator.exhausted
    drained = generator.begin()
    generator.drain()
    unanswered = generator.outstanding
    generator.close()
    whole = Tally()
    for phase in (warmup, measured, drained):
        decode_frames(phase)
        whole.add(phase.tally)
    if job.rate_per_s is not None:
        # They fell due within the measured time: without them the slowest calls of its end would be forgotten.
        measured.tally.latencies.merge([drained.tally.latencies])
    return GeneratorResult(
        seconds=(stopped_us - started_us) / 1e6,
        exhausted=exhausted,
        cpu_s=stopped_cpu_s - started_cpu_s,
        measured=measured.tally,
        whole=whole,
        unanswered=unanswered,
        connections_per_worker=dict(generator.spread),
    )


def main() -> None:
    """Reads one job, runs it, writes its result."""
    job = GeneratorJob.from_json(sys.stdin.readline())
    tell(run(job).to_json())


if __name__ == "__main__":
    main()
