"""Plays one generator's part of a scene with Locust as a library; runs in the patched process only."""

import gc
import json
import logging
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from gevent.pool import Pool  # type: ignore[import-untyped]
from locust.env import Environment
from onecard.v1 import cryptography_pb2

from clients.channel import ClientCredentials, new_request_id
from clients.demo.residents import MAILER_KEY, Bureau, Resident
from clients.purpose import CARD_PIN
from clients.services.cryptography import ISSUE_PIN
from loadtests.arrivals import Arrival, plan_arrivals
from loadtests.caller import Caller, ScenePlay, failure_of
from loadtests.card_pool import CardPool
from loadtests.generator_job import READY, GeneratorJob, write_acknowledgement
from loadtests.grpc_calls import DEADLINE_S, GrpcCalls
from loadtests.tally import SceneTally

NOT_FINISHED: Final = "NOT_FINISHED"
# Above the deadline of two calls in a row: after it only a fault of the generator is left.
_DRAIN_S_MAX: Final = 2 * DEADLINE_S + 5.0
_SPAWN_S_MAX: Final = 10.0
ISSUES_IN_FLIGHT: Final = 64


class Recorder:
    """Listens to Locust's requests and counts them."""

    def __init__(self) -> None:
        self.tally = SceneTally()
        self.last_s = 0.0

    def on_request(
        self,
        *,
        name: str,
        response_time: float,
        exception: Exception | None,
        context: dict[str, Any],
        **_: object,
    ) -> None:
        """One operation ended; see ``Caller.do_next``."""
        self.last_s = time.monotonic()
        self.tally.record(
            name,
            measured=context["measured"],
            latency_s=response_time / 1000,
            late_s=context["late_s"],
            decline=context["decline"],
            failure="" if exception is None else failure_of(exception),
        )

    def finish(self, arrivals: list[Arrival], *, measured_from_s: float, planned_end_s: float) -> SceneTally:
        """Sets what only the whole plan tells: what was attempted, and what never ended."""
        for arrival in arrivals:
            if arrival.measured:
                self.tally.operations[arrival.operation].attempted += 1
        for operation in self.tally.operations.values():
            missing = operation.attempted - operation.answered - operation.failures.total()
            if missing:
                operation.failures[NOT_FINISHED] += missing
        self.tally.measured_s = max(self.last_s, planned_end_s) - measured_from_s
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.tally.cpu_s = usage.ru_utime + usage.ru_stime
        return self.tally


def make_residents(job: GeneratorJob, bureau: Bureau) -> list[Resident]:
    """This generator's cards: keys are derived here, as a bureau does, and never leave the process."""
    return [bureau.produce(number)[1] for number in range(job.number, job.cards, job.generators)]


def issue_pins(
    residents: Sequence[Resident], bureau: Bureau, connections: Sequence[GrpcCalls]
) -> dict[str, str]:
    """Gives every card a PIN and reads its mailer; PINs by PAN, in memory only.

    Raises:
        OneCardCallError: a PIN was not issued.
    """

    def issue(number: int) -> tuple[str, str]:
        pan = residents[number].chip.pan
        request = cryptography_pb2.IssuePinRequest(
            request_id=new_request_id(),
            catalogue_item=CARD_PIN.catalogue_item,
            catalogue_item_version=CARD_PIN.catalogue_item_version,
            pan=pan,
            key=cryptography_pb2.KeyReference(name=MAILER_KEY),
            format=cryptography_pb2.PIN_BLOCK_FORMAT_SM4_0,
        )
        issued = connections[number % len(connections)].send(ISSUE_PIN, request)
        return pan, bureau.read_mailer(issued.pin_block, pan=pan)

    return dict(Pool(ISSUES_IN_FLIGHT).map(issue, range(len(residents))))


def play_job(job: GeneratorJob) -> SceneTally:
    """Makes ready, says so, waits for the start time on stdin, and plays."""
    arrivals = plan_arrivals(
        job.shares,
        rate_per_s=job.rate_per_s,
        warmup_s=job.warmup_s,
        seconds=job.seconds,
        seed=job.number + 1,
    )
    credentials = ClientCredentials.of_participant(job.data_dir, job.participant)
    connections = [GrpcCalls(job.port, credentials) for _ in range(job.connections)]
    for connection in connections:
        connection.connect()
    bureau = Bureau(job.data_dir)
    residents = make_residents(job, bureau)
    pins = issue_pins(residents, bureau, connections)
    recorder = Recorder()
    with job.acknowledgement_file.open("w", encoding="ascii") as file:
        play = ScenePlay(
            arrivals,
            connections=connections,
            pool=CardPool(residents),
            pins=pins,
            new_pad=bureau.pin_pad,
            number=job.number,
            acknowledge=lambda acknowledgement: write_acknowledgement(file, acknowledgement),
        )
        # A pause of the collector over thousands of cards would be measured as latency of the core.
        gc.collect()
        gc.freeze()
        sys.stdout.write(READY + "\n")
        sys.stdout.flush()
        play.start_s = float(sys.stdin.readline())
        run_locust(play, recorder, callers=job.callers, seconds=job.warmup_s + job.seconds)
    for connection in connections:
        connection.close()
    return recorder.finish(
        arrivals,
        measured_from_s=play.start_s + job.warmup_s,
        planned_end_s=play.start_s + job.warmup_s + job.seconds,
    )


def run_locust(play: ScenePlay, recorder: Recorder, *, callers: int, seconds: float) -> None:
    """Lets Locust run the callers until the plan is done, or nothing more can come."""
    Caller.play = play
    # An unexpected exception ends its greenlet with a traceback; its arrival is then NOT_FINISHED.
    environment = Environment(user_classes=[Caller], catch_exceptions=False)
    environment.events.request.add_listener(recorder.on_request)  # type: ignore[no-untyped-call]
    # It warns of fast spawning, which here costs nothing: callers wait for the plan.
    logging.getLogger("locust.runners").setLevel(logging.ERROR)
    runner = environment.create_local_runner()
    runner.start(callers, spawn_rate=callers)
    play.finished.wait(_SPAWN_S_MAX + seconds + _DRAIN_S_MAX)
    runner.quit()


def main() -> None:
    """One job, one tally."""
    tally = play_job(GeneratorJob.from_json(sys.stdin.readline()))
    sys.stdout.write(json.dumps(tally.to_json()) + "\n")
