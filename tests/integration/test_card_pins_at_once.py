"""PINs of cards asked again and all at once: one answer and one record each, and three tries, whoever races."""

import asyncio
from typing import Any

from core_under_test import CALL_S, Caller, Core, changed, refusal_of
from onecard.v1 import common_pb2
from onecard.v1 import cryptography_pb2 as pb
from pin_calls import change, issue, told, tries, unblock, verify, with_pin
from pin_pad import ISO_4, OTHER, RIGHT, THIRD, WRONG, PinPad, key, pin_issue, pin_unblock
from virtual_card import VirtualCard

from server.engine.operation import OperationKind

SERVICE = "CryptographyService"


async def test_repeat_gives_the_same_bytes_and_counts_no_second_try(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    requests = [
        ("VerifyPin", pad.verification(card, WRONG)),
        ("ChangePin", pad.change(card, WRONG, OTHER)),
        ("UnblockPin", pin_unblock(card)),
        ("ChangePin", pad.change(card, RIGHT, OTHER)),
        ("IssuePin", pin_issue(card)),
    ]
    firsts = []
    for (rpc, request), expected in zip(requests, (1, 2, 0, 0, 0), strict=True):
        firsts.append(await bank.raw(f"{SERVICE}/{rpc}", request))
        repeats = [core.caller().raw(f"{SERVICE}/{rpc}", request) for _ in range(4)]
        assert await asyncio.gather(*repeats) == firsts[-1:] * 4
        assert await tries(core, card) == expected
        assert await core.stored(request.request_id) == 1
    # Long after, too: what was answered does not depend on what the PIN has become.
    for (rpc, request), first in zip(requests, firsts, strict=True):
        assert await bank.raw(f"{SERVICE}/{rpc}", request) == first
    mailed = pad.opened(pb.IssuePinResponse.FromString(firsts[-1]).pin_block, card.pan)
    assert await verify(bank, pad, card, mailed) == ("00", "ACCEPTED", 3)


async def test_twins_of_one_verification_count_one_try(core: Core, pad: PinPad, bank: Caller) -> None:
    callers = [core.caller() for _ in range(4)]
    for _ in range(10):
        card = await with_pin(core, bank, pad)
        request = pad.verification(card, WRONG)
        answers = await asyncio.gather(
            *(callers[n % 4].raw(f"{SERVICE}/VerifyPin", request) for n in range(12))
        )
        assert len(set(answers)) == 1
        assert await tries(core, card) == 1


async def test_other_content_under_an_id_is_refused_by_field(
    core: Core, bank: Caller, other_bank: Caller, pad: PinPad
) -> None:
    card, other = await with_pin(core, bank, pad), core.card()
    stub = bank.cryptography
    verification, changing = pad.verification(card, WRONG), pad.change(card, WRONG, OTHER)
    unblocking, issuing = pin_unblock(card), pin_issue(card)
    reference = common_pb2.CardReference(pan=other.pan)
    trials: list[tuple[Any, Any, Any, str]] = [
        (stub.VerifyPin, verification, changed(verification, pin=pad.pin(OTHER, card.pan)), "content"),
        (stub.VerifyPin, verification, changed(verification, pan=other.pan), "card"),
        (stub.VerifyPin, verification, changed(verification, terminal_id="T-2"), "terminal_id"),
        (stub.VerifyPin, verification, pad.verification(card, request_id=verification.request_id), "content"),
        (stub.ChangePin, changing, changed(changing, new_pin=pad.pin(THIRD, card.pan)), "content"),
        (stub.ChangePin, changing, changed(changing, current_pin=pad.pin(OTHER, card.pan)), "content"),
        (stub.UnblockPin, unblocking, changed(unblocking, card=reference), "card"),
        (stub.IssuePin, issuing, changed(issuing, key=key("zpk-aes"), format=ISO_4), "content"),
        (stub.IssuePin, issuing, changed(issuing, pan=other.pan), "card"),
    ]
    for rpc, first, second, field in trials:
        answer = await rpc(first, timeout=CALL_S)
        refusal = await refusal_of(rpc(second, timeout=CALL_S))
        assert (refusal.code.name, refusal.reason, refusal.field) == (
            "ALREADY_EXISTS",
            "REQUEST_ID_REUSED",
            field,
        )
        assert await rpc(first, timeout=CALL_S) == answer
    refusal = await refusal_of(other_bank.cryptography.VerifyPin(verification, timeout=CALL_S))
    assert (refusal.reason, refusal.field) == ("REQUEST_ID_REUSED", "caller")
    reused = pin_unblock(card, request_id=verification.request_id)
    refusal = await refusal_of(stub.UnblockPin(reused, timeout=CALL_S))
    assert (refusal.reason, refusal.field) == ("REQUEST_ID_REUSED", "operation")
    assert (
        await core.database.fetchval(
            "SELECT count(*) FROM card_pins WHERE card_id = $1", await core.card_id(other)
        )
        == 0
    )


async def test_every_access_to_a_pin_leaves_one_row_with_its_purpose(
    core: Core, bank: Caller, other_bank: Caller, pad: PinPad
) -> None:
    card = core.card()
    await issue(bank, pad, card)
    verification = pad.verification(card, WRONG)
    for _ in range(3):
        await other_bank.cryptography.VerifyPin(verification, timeout=CALL_S)
    await change(bank, pad, card, WRONG)
    await unblock(bank, pad, card)
    rows = await core.database.fetch(
        "SELECT participant_id, operation_kind, catalogue_item, catalogue_item_version, terminal_id"
        " FROM access_log WHERE card_id = $1 ORDER BY block_id, entry_number",
        await core.card_id(card),
    )
    assert [tuple(row) for row in rows] == [
        ("bank-01", OperationKind.ISSUE_PIN, "card.pin", 1, ""),
        ("bank-02", OperationKind.VERIFY_PIN, "card.pin", 1, "T-PIN"),
        ("bank-01", OperationKind.CHANGE_PIN, "card.pin", 1, "T-PIN"),
        ("bank-01", OperationKind.UNBLOCK_PIN, "card.pin", 1, ""),
    ]


async def test_of_many_wrong_guesses_at_once_three_are_compared(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    callers = [core.caller() for _ in range(8)]
    for _ in range(3):
        card = await with_pin(core, bank, pad)
        guesses = [verify(callers[n % 8], pad, card, f"{n:08d}") for n in range(1, 61) if f"{n:08d}" != RIGHT]
        answers = await asyncio.gather(*guesses)
        compared = sorted(answer for answer in answers if answer[1] == "WRONG_PIN")
        assert compared == [("55", "WRONG_PIN", left) for left in (0, 1, 2)]
        assert set(answers) - set(compared) == {("75", "TRIES_EXCEEDED", 0)}
        late = await asyncio.gather(
            *(verify(callers[n], pad, card, RIGHT if n % 2 else WRONG) for n in range(8))
        )
        assert set(late) == {("75", "TRIES_EXCEEDED", 0)}
        assert await tries(core, card) == 3


async def test_guesses_in_one_frame_and_by_changes_are_counted_alike(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    card = await with_pin(core, bank, pad)
    operations = [
        pb.CryptographyOperation(verify_pin=pad.verification(card, f"{n:08d}"))
        if n % 2
        else pb.CryptographyOperation(change_pin=pad.change(card, f"{n:08d}"))
        for n in range(1, 40)
    ]
    frames = [pb.CryptographyStreamRequest(operations=operations[n::3]) for n in range(3)]

    async def answer(frame: pb.CryptographyStreamRequest) -> list[Any]:
        call = core.caller().cryptography.CryptographyStream(iter([frame]), timeout=CALL_S)
        (answered,) = [response async for response in call]
        return [told(getattr(r, r.WhichOneof("outcome"))) for r in answered.results]

    answers = [one for frame in await asyncio.gather(*map(answer, frames)) for one in frame]
    assert len(answers) == 39
    compared = sorted(answer for answer in answers if answer[1] == "WRONG_PIN")
    assert compared == [("55", "WRONG_PIN", left) for left in (0, 1, 2)]
    assert await verify(bank, pad, card) == ("75", "TRIES_EXCEEDED", 0)


async def test_change_is_in_force_for_every_verification_that_is_answered_after_it(
    core: Core, bank: Caller, pad: PinPad
) -> None:
    callers = [core.caller() for _ in range(6)]
    for _ in range(6):
        card = await with_pin(core, bank, pad)
        is_changed = asyncio.Event()
        late: list[Any] = []

        async def keep_verifying(
            n: int, card: VirtualCard = card, is_changed: asyncio.Event = is_changed, late: list[Any] = late
        ) -> None:
            while True:
                was_changed = is_changed.is_set()
                answer = await verify(callers[n], pad, card, RIGHT)
                if was_changed:
                    late.append(answer)
                    return
                assert answer[1] in {"ACCEPTED", "WRONG_PIN", "TRIES_EXCEEDED"}

        verifying = [asyncio.create_task(keep_verifying(n)) for n in range(5)]
        assert await change(callers[5], pad, card, RIGHT, OTHER) == ("00", "ACCEPTED", 3)
        is_changed.set()
        await asyncio.gather(*verifying)
        assert late
        assert not {answer[1] for answer in late} & {"ACCEPTED"}


async def test_of_two_changes_at_once_one_is_made(core: Core, bank: Caller, pad: PinPad) -> None:
    callers = [core.caller() for _ in range(4)]
    for _ in range(8):
        card = await with_pin(core, bank, pad)
        news = (OTHER, THIRD)
        answers = await asyncio.gather(
            *(change(callers[n], pad, card, RIGHT, new) for n, new in enumerate(news))
        )
        assert sorted(answers) == [("00", "ACCEPTED", 3), ("55", "WRONG_PIN", 2)]
        made = news[answers.index(("00", "ACCEPTED", 3))]
        assert await verify(bank, pad, card, made) == ("00", "ACCEPTED", 3)
