"""Card on file: a participant's own token names a card from its registration until its end, and then never again."""

import asyncio

from core_under_test import (
    CALL_S,
    OPENING_BALANCE_MINOR,
    Caller,
    Core,
    loss_report,
    purpose,
    refusal_of,
    without,
)
from entry_requests import by_token, new_token, refused, register, registration, revocation, revoke
from money_requests import (
    APPROVED,
    COMPLETION,
    INCREMENT,
    PRE_AUTHORIZATION,
    REFUND,
    REVERSAL,
    VOID,
    by_request_id,
    decision,
)
from onecard.v1 import authorization_pb2 as pb

from server.cards.identifiers import luhn_digit
from server.rulebook.rules import Channel

UNKNOWN = ("14", "CARD_TOKEN_UNKNOWN")


async def test_registered_token_pays_and_tells_no_balance(core: Core, bank: Caller) -> None:
    card = core.card()
    token = await register(bank, card)
    request = by_token(token, 1_200)
    response = await bank.authorize(request)
    assert (decision(response), response.available_minor, response.arpc) == (APPROVED, 0, b"")
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - 1_200
    row = await core.database.fetchrow(
        "SELECT channel, card_id FROM operations WHERE request_id = $1", request.request_id
    )
    assert tuple(row) == (Channel.CARD_ON_FILE, await core.card_id(card))


async def test_card_may_have_many_tokens_of_many_participants(
    core: Core, bank: Caller, other_bank: Caller
) -> None:
    card, other = core.card(), core.card()
    token = await register(bank, card)
    # The same text is another participant's own token, of another card.
    await register(other_bank, other, token)
    second = await register(bank, card)
    for caller, text, named in ((bank, token, card), (bank, second, card), (other_bank, token, other)):
        before = await core.balance_minor(named)
        assert decision(await caller.authorize(by_token(text, 10))) == APPROVED
        assert await core.balance_minor(named) == before - 10
    assert decision(await other_bank.authorize(by_token(second))) == UNKNOWN
    assert await refused(other_bank.authorization.RevokeCardToken(revocation(second), timeout=CALL_S)) == (
        "NOT_FOUND",
        "CARD_TOKEN_UNKNOWN",
        "card_token",
    )


async def test_token_that_was_never_registered_is_declined(core: Core, bank: Caller) -> None:
    request = by_token(new_token())
    response = await bank.authorize(request)
    assert (decision(response), response.available_minor) == (UNKNOWN, 0)
    assert await core.stored(request.request_id) == 1


async def test_revocation_is_in_force_for_the_next_operation_of_every_worker(
    core: Core, bank: Caller
) -> None:
    callers = [core.caller() for _ in range(6)]
    for _ in range(6):
        card = core.card()
        token = await register(bank, card)
        answers = await asyncio.gather(*(caller.authorize(by_token(token, 1)) for caller in callers))
        assert {decision(answer) for answer in answers} == {APPROVED}
        await revoke(callers[0], token)
        answers = await asyncio.gather(*(caller.authorize(by_token(token, 1)) for caller in callers))
        assert {decision(answer) for answer in answers} == {UNKNOWN}
        assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - 6


async def test_charges_racing_a_revocation_are_declined_once_it_is_answered(core: Core, bank: Caller) -> None:
    callers = [core.caller() for _ in range(6)]
    for _ in range(4):
        card = core.card()
        token = await register(bank, card)
        is_revoked = asyncio.Event()

        async def keep_charging(
            caller: Caller, token: str = token, is_revoked: asyncio.Event = is_revoked
        ) -> tuple[str, str]:
            while True:
                was_revoked = is_revoked.is_set()
                answer = decision(await caller.authorize(by_token(token, 1)))
                if was_revoked:
                    return answer
                assert answer in {APPROVED, UNKNOWN}

        charging = [asyncio.create_task(keep_charging(caller)) for caller in callers[:5]]
        await asyncio.sleep(0.02)
        await revoke(callers[5], token)
        is_revoked.set()
        assert set(await asyncio.gather(*charging)) == {UNKNOWN}


async def test_what_follows_and_what_gives_back_under_a_revoked_token(core: Core, bank: Caller) -> None:
    card = core.card()
    token = await register(bank, card)
    held = [by_token(token, 1_000, operation=PRE_AUTHORIZATION) for _ in range(2)]
    paid = [by_token(token, 300) for _ in range(3)]
    for request in (*held, *paid):
        assert decision(await bank.authorize(request)) == APPROVED
    increment = by_token(token, 100, operation=INCREMENT, original=by_request_id(held[0]))
    completion = by_token(token, 900, operation=COMPLETION, original=by_request_id(held[0]))
    for request in (increment, completion):
        assert decision(await bank.authorize(request)) == APPROVED
    await revoke(bank, token)
    for operation in (INCREMENT, COMPLETION):
        more = by_token(token, 100, operation=operation, original=by_request_id(held[1]))
        assert decision(await bank.authorize(more)) == UNKNOWN
    assert decision(await bank.authorize(by_token(token, 1, operation=PRE_AUTHORIZATION))) == UNKNOWN
    for operation, original, amount in (
        (VOID, held[1], 0),
        (VOID, paid[0], 0),
        (REFUND, paid[1], 300),
        (REVERSAL, paid[2], 0),
    ):
        back = by_token(token, amount, operation=operation, original=by_request_id(original))
        assert decision(await bank.authorize(back)) == APPROVED
    assert await core.balance_minor(card) == OPENING_BALANCE_MINOR - 900
    # What has happened is posted, and flagged: that the token was ended does not undo it.
    late = by_token(token, 50, is_advice=True)
    assert decision(await bank.authorize(late)) == ("00", "FORCED_POST")
    assert decision(await bank.authorize(by_token(new_token(), 50, is_advice=True))) == UNKNOWN


async def test_token_comes_before_the_status_of_its_card(core: Core, bank: Caller) -> None:
    card = core.card()
    token, ended = await register(bank, card), await register(bank, card)
    await revoke(bank, ended)
    await bank.cards.ReportLoss(loss_report(card), timeout=CALL_S)
    assert decision(await bank.authorize(by_token(ended))) == UNKNOWN
    assert decision(await bank.authorize(by_token(token))) == ("41", "CARD_LOST")


async def test_token_out_of_bounds_or_a_card_number_is_refused(core: Core, bank: Caller) -> None:
    card = core.card()
    digits = "621700001234567"
    number = digits + luhn_digit(digits)
    bad = [
        "",
        "short-1",
        "x" * 65,
        "with space",
        "号" * 8,
        number,
        card.pan,
        "-".join((number[:4], number[4:8], number[8:])),
        number[:12] + "." + number[12:],
    ]
    for token in bad:
        refusal = await refusal_of(
            bank.authorization.RegisterCardToken(registration(card, card_token=token), timeout=CALL_S)
        )
        assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", "card_token"), token
        assert not token or token not in refusal.text
        refusal = await refusal_of(bank.authorization.RevokeCardToken(revocation(token), timeout=CALL_S))
        assert (refusal.code.name, refusal.field) == ("INVALID_ARGUMENT", "card_token")
    # Digits alone are no card number, nor is one within more.
    for token in (number[:-1] + str((int(number[-1]) + 1) % 10), f"order-{number}"):
        await register(bank, card, token)


async def test_token_is_refused_by_name_where_it_has_no_place(core: Core, bank: Caller) -> None:
    card = core.card()
    token = await register(bank, card)
    trials = [
        (by_token(token, pan=card.pan), "pan"),
        (by_token(token, chip=card.sign(100)), "chip"),
        (by_token("x" * 65), "card_token"),
        (by_token("a b"), "card_token"),
        *(
            (
                by_token(token, 0 if kind == pb.OPERATION_TYPE_BALANCE_INQUIRY else 100, operation=kind),
                "card_token",
            )
            for kind in (
                pb.OPERATION_TYPE_CASH_WITHDRAWAL,
                pb.OPERATION_TYPE_TRANSFER,
                pb.OPERATION_TYPE_TAP,
                pb.OPERATION_TYPE_DEPOSIT,
                pb.OPERATION_TYPE_BENEFIT_CREDIT,
                pb.OPERATION_TYPE_BALANCE_INQUIRY,
            )
        ),
    ]
    for request, field in trials:
        assert await refused(bank.authorize(request)) == ("INVALID_ARGUMENT", "MALFORMED_FIELD", field)
    neither = by_token("")
    assert await refused(bank.authorize(neither)) == ("INVALID_ARGUMENT", "MALFORMED_FIELD", "pan")


async def test_paying_by_token_needs_its_class_and_the_cards_region(core: Core, bank: Caller) -> None:
    cards = [core.card() for _ in range(12)]
    abroad = next(card for card in cards if card.facts.issuing_region != "360100")
    at_home = next(card for card in cards if card.facts.issuing_region == "360100")
    classless = core.caller(without("card_token"))
    assert await refused(classless.authorize(by_token(new_token()))) == (
        "PERMISSION_DENIED",
        "RPC_CLASS_NOT_GRANTED",
        "",
    )
    nanchang = core.caller("nanchang-01")
    token = await register(nanchang, at_home)
    assert decision(await nanchang.authorize(by_token(token))) == APPROVED
    request = registration(abroad)
    refusal = await refused(nanchang.authorization.RegisterCardToken(request, timeout=CALL_S))
    assert refusal == ("NOT_FOUND", "CARD_UNKNOWN", "card")
    other_purpose = registration(at_home, **purpose("card.ended"))
    assert (await refused(nanchang.authorization.RegisterCardToken(other_purpose, timeout=CALL_S)))[0] == (
        "FAILED_PRECONDITION"
    )
