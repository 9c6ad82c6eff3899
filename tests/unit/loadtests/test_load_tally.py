"""What is counted, what crosses the pipe, and when a run is not passed."""

import io
import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from loadtests.audit import Audit
from loadtests.core_calls import Acknowledgement
from loadtests.generator_job import GeneratorJob, read_acknowledgements, write_acknowledgement
from loadtests.report import LoadReport
from loadtests.scene import Scene
from loadtests.tally import SceneTally
from server.engine.operation import OperationKind

SCENE = Scene(title="test", rates={"tap": 3.0}, left_out={"inquiry": 1.0})
CLEAN = Audit(acknowledged=100, missing=0, repeated=0, different=0, reads_missing=0, not_reconciled=None)


def tally_of(*, attempted: int = 100, answered: int = 100, measured_s: float = 10.0) -> SceneTally:
    tally = SceneTally(measured_s=measured_s)
    for _ in range(answered):
        tally.record("tap", measured=True, latency_s=0.01, late_s=0.0, decline="", failure="")
    tally.operations["tap"].attempted = attempted
    return tally


def report_of(tally: SceneTally, audit: Audit = CLEAN) -> LoadReport:
    return LoadReport(scene=SCENE, seconds=10.0, tally=tally, audit=audit)


def test_percentiles_are_those_of_the_sorted_latencies() -> None:
    latencies_s = [0.001 * number for number in range(1, 1_001)]
    tally = SceneTally()
    for latency_s in random.Random(1).sample(latencies_s, 1_000):
        tally.record("tap", measured=True, latency_s=latency_s, late_s=0.0, decline="", failure="")
    for percent, expected_ms in ((50, 500), (99, 990), (100, 1_000)):
        found = tally.operations["tap"].latencies.percentile_ms(percent)
        assert found == pytest.approx(expected_ms, rel=0.004)


def test_declines_are_answers_and_failures_are_none() -> None:
    tally = SceneTally()
    tally.record("tap", measured=True, latency_s=0.1, late_s=0.0, decline="51 INSUFFICIENT_FUNDS", failure="")
    tally.record("tap", measured=True, latency_s=10.0, late_s=0.0, decline="", failure="DEADLINE_EXCEEDED")
    tap = tally.operations["tap"]
    assert (tap.answered, tap.declines, tap.failures) == (
        1,
        {"51 INSUFFICIENT_FUNDS": 1},
        {"DEADLINE_EXCEEDED": 1},
    )
    assert tap.latencies.count == 1


def test_warmup_is_not_measured_but_its_failures_count() -> None:
    tally = tally_of()
    tally.record("tap", measured=False, latency_s=9.0, late_s=0.0, decline="", failure="")
    assert tally.operations["tap"].latencies.count == 100
    assert not report_of(tally).problems()
    tally.record("tap", measured=False, latency_s=9.0, late_s=0.0, decline="", failure="UNAVAILABLE")
    assert report_of(tally).problems()


def test_tally_crosses_the_pipe_and_adds_up() -> None:
    tally = tally_of()
    tally.record("tap", measured=True, latency_s=0.2, late_s=0.003, decline="41 CARD_LOST", failure="")
    back = SceneTally.from_json(json.loads(json.dumps(tally.to_json())))
    assert back.to_json() == tally.to_json()
    back.add(tally)
    assert back.total.answered == 202
    assert back.total.declines == {"41 CARD_LOST": 2}
    assert back.measured_s == 10.0


def test_run_passes_only_without_failures_at_the_rate_and_with_clean_books() -> None:
    assert not report_of(tally_of()).problems()
    assert report_of(tally_of(answered=99, attempted=99, measured_s=10.6)).problems()
    assert report_of(tally_of(answered=0, attempted=0)).problems()
    for audit in (
        Audit(acknowledged=100, missing=1, repeated=0, different=0, reads_missing=0, not_reconciled=None),
        Audit(acknowledged=100, missing=0, repeated=1, different=0, reads_missing=0, not_reconciled=None),
        Audit(acknowledged=100, missing=0, repeated=0, different=1, reads_missing=0, not_reconciled=None),
        Audit(acknowledged=100, missing=0, repeated=0, different=0, reads_missing=1, not_reconciled=None),
        Audit(acknowledged=100, missing=0, repeated=0, different=0, reads_missing=0, not_reconciled="no"),
    ):
        assert len(report_of(tally_of(), audit).problems()) == 1


def test_report_names_what_is_left_out_and_the_verdict() -> None:
    text = io.StringIO()
    report_of(tally_of()).print(Console(file=text, width=150))
    assert "25.0% of the model (inquiry 25.0%)" in text.getvalue()
    assert "attempted 10.0/s, achieved 10.0/s" in text.getvalue()
    assert "verdict: passed" in text.getvalue()


def test_acknowledgements_are_read_as_written(tmp_path: Path) -> None:
    written = [
        Acknowledgement(kind=OperationKind.PURCHASE, request_id="id-1", reason=14, amount_minor=250),
        Acknowledgement(kind=OperationKind.GET_CARD_STATUS),
    ]
    path = tmp_path / "acknowledged"
    with path.open("w") as file:
        for acknowledgement in written:
            write_acknowledgement(file, acknowledgement)
    assert list(read_acknowledgements(path)) == written


def test_job_crosses_the_pipe() -> None:
    job = GeneratorJob(
        number=1,
        generators=2,
        data_dir=Path("/data"),
        participant="load",
        port=7443,
        cards=10,
        shares={"tap": 1.0},
        rate_per_s=150.0,
        warmup_s=3.0,
        seconds=30.0,
        connections=4,
        callers=200,
        acknowledgement_file=Path("/run/acknowledged-1"),
    )
    assert GeneratorJob.from_json(job.to_json()) == job
