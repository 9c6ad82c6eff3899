"""The demonstration's scorecard, and how a refusal is told."""

import io
from collections.abc import Awaitable

import grpc
from onecard.v1 import authorization_pb2 as pb
from rich.console import Console

from clients.demo.scorecard import Scene, Scorecard, refusal_of
from clients.errors import call_error


def shown(scorecard: Scorecard) -> str:
    output = io.StringIO()
    scorecard.show(Console(file=output, width=200), {"360100": "南昌"})
    return output.getvalue()


def test_scorecard_names_what_was_expected_and_what_came() -> None:
    scorecard = Scorecard()
    for scene in Scene:
        scorecard.expect("360100", scene, "answer", expected="00", got="00")
    assert not scorecard.mismatches
    assert "✗" not in shown(scorecard)
    scorecard.expect("360100", Scene.TAMPERED, "decision", expected="05", got="00")
    scorecard.event("money", "adds up", expected=0, got=3)
    text = shown(scorecard)
    assert len(scorecard.mismatches) == 2
    assert text.count("✗") == 2
    assert "Not as expected" in text


def test_scene_that_was_never_played_has_no_check_mark() -> None:
    assert shown(Scorecard()).count("✗") == len(Scene)


async def test_refusal_is_told_as_code_reason_and_field() -> None:
    async def refused() -> pb.AuthorizeResponse:
        raise call_error(grpc.StatusCode.ALREADY_EXISTS, reason="REQUEST_ID_REUSED", field="amount_minor")

    async def answered() -> pb.AuthorizeResponse:
        return pb.AuthorizeResponse()

    calls: list[Awaitable[pb.AuthorizeResponse]] = [refused(), answered()]
    told = [await refusal_of(call) for call in calls]
    assert told == ["ALREADY_EXISTS REQUEST_ID_REUSED amount_minor", "an answer"]
