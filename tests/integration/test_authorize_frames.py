"""Frames of money operations: answered in order, each operation for itself, and never more than a frame holds."""

import pytest
from core_under_test import OPENING_BALANCE_MINOR, Caller, Core, changed, deposit, purchase, refusal_of


async def test_frame_is_answered_in_order_and_its_errors_leave_the_others_alone(
    core: Core, bank: Caller
) -> None:
    cards = [core.card() for _ in range(4)]
    unknown = core.unissued_card()
    frame = [
        purchase(cards[0], 10),
        purchase(cards[1], 11, currency_code="USD"),
        purchase(unknown, 12),
        purchase(cards[2], 13),
        purchase(cards[3], 14, chip=changed(cards[3].sign(14), arqc=bytes(7))),
        deposit(cards[1], 15),
    ]
    (answer,) = await bank.frames(frame)
    kinds = [result.WhichOneof("outcome") for result in answer.results]
    assert kinds == ["response", "error", "response", "response", "error", "response"]
    assert [r.response.response_code for r in answer.results if r.HasField("response")] == [
        "00",
        "14",
        "00",
        "00",
    ]
    errors = [answer.results[index].error for index in (1, 4)]
    assert [(e.code, e.reason, e.field) for e in errors] == [
        (3, "MALFORMED_FIELD", "currency_code"),
        (3, "MALFORMED_FIELD", "chip.arqc"),
    ]
    assert answer.results[5].response.response_code == "00"
    assert await core.balance_minor(cards[1]) == OPENING_BALANCE_MINOR + 15


async def test_operations_on_one_card_in_one_frame_see_each_other(core: Core, bank: Caller) -> None:
    card = core.card()
    frame = [
        purchase(card, 400_000),
        purchase(card, 400_000),
        purchase(card, 400_000),
        deposit(card, 300_000),
    ]
    (answer,) = await bank.frames(frame)
    outcomes = [(r.response.response_code, r.response.available_minor) for r in answer.results]
    assert outcomes == [("00", 600_000), ("00", 200_000), ("51", 200_000), ("00", 0)]
    assert await core.balance_minor(card) == 500_000


async def test_frames_of_a_stream_are_answered_in_order(core: Core, bank: Caller) -> None:
    frames = [[purchase(core.card(), 1 + number)] * (1 + number % 3) for number in range(24)]
    answers = await bank.frames(*frames)
    assert [answer.frame_id for answer in answers] == list(range(24))
    assert [len(answer.results) for answer in answers] == [len(frame) for frame in frames]
    for number, answer in enumerate(answers):
        for result in answer.results:
            assert result.response.available_minor == OPENING_BALANCE_MINOR - 1 - number


@pytest.mark.parametrize("size", [0, 513])
async def test_frame_of_wrong_size_is_refused_by_name(core: Core, bank: Caller, size: int) -> None:
    request = purchase(core.card())
    refusal = await refusal_of(bank.frames([request] * size))
    assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", "operations")
    assert await core.stored(request.request_id) == 0


async def test_largest_frame_is_decided_in_whole(core: Core, bank: Caller) -> None:
    card = core.card()
    (answer,) = await bank.frames([deposit(card, 1) for _ in range(512)])
    assert {result.response.response_code for result in answer.results} == {"00"}
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR + 512


async def test_card_of_a_foreign_region_is_refused_in_a_frame_by_itself(core: Core, bank: Caller) -> None:
    nanchang = core.caller("nanchang-01")
    at_home = next(card for card in (core.card() for _ in range(11)) if card.facts.issuing_region == "360100")
    abroad = next(card for card in (core.card() for _ in range(11)) if card.facts.issuing_region != "360100")
    (answer,) = await nanchang.frames([purchase(abroad), purchase(at_home), purchase(abroad)])
    assert [result.WhichOneof("outcome") for result in answer.results] == ["error", "response", "error"]
    assert answer.results[0].error.reason == "REGION_NOT_GRANTED"
    assert answer.results[0].error.code == 7
