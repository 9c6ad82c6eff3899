"""Card tokens: registered once, ended once, kept as a digest."""

import asyncio
from typing import Any

import pytest
from core_under_test import (
    CALL_S,
    OPENING_BALANCE_MINOR,
    Caller,
    Core,
    changed,
    refusal_of,
)
from entry_requests import by_token, new_token, refused, register, registration, revocation, revoke
from money_requests import (
    APPROVED,
    decision,
)
from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import common_pb2

from server.cards.rules import CardStatus
from server.engine.operation import OperationKind

REGISTER, REVOKE = "AuthorizationService/RegisterCardToken", "AuthorizationService/RevokeCardToken"


async def test_token_that_was_taken_or_ended_is_not_registered_again(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    token = await register(bank, card)
    taken = ("ALREADY_EXISTS", "CARD_TOKEN_TAKEN", "card_token")
    register_token = bank.authorization.RegisterCardToken
    for wanted in (card, other):
        assert await refused(register_token(registration(wanted, token), timeout=CALL_S)) == taken
    await revoke(bank, token)
    for wanted in (card, other):
        assert await refused(register_token(registration(wanted, token), timeout=CALL_S)) == taken
    unknown = ("NOT_FOUND", "CARD_TOKEN_UNKNOWN", "card_token")
    for gone in (token, new_token()):
        assert await refused(bank.authorization.RevokeCardToken(revocation(gone), timeout=CALL_S)) == unknown


async def test_of_many_registrations_of_one_token_at_two_workers_one_is_made(
    core: Core, bank: Caller
) -> None:
    callers = [core.caller() for _ in range(8)]
    for n in range(8):
        cards = [core.card()] if n % 2 else [core.card() for _ in range(8)]
        token = new_token()

        async def attempt(k: int, cards: list[Any] = cards, token: str = token) -> str:
            request = registration(cards[k % len(cards)], token)
            call = callers[k].authorization.RegisterCardToken(request, timeout=CALL_S)
            try:
                await call
            except Exception as error:
                return (await refusal_of(_raise(error))).reason
            return "made"

        results = await asyncio.gather(*(attempt(k) for k in range(8)))
        assert sorted(results) == ["CARD_TOKEN_TAKEN"] * 7 + ["made"]
        named = cards[results.index("made") % len(cards)]
        assert decision(await bank.authorize(by_token(token, 5))) == APPROVED
        assert await core.balance_minor(named) == OPENING_BALANCE_MINOR - 5
        assert decision(await callers[3].authorize(by_token(token, 5))) == APPROVED


async def _raise(error: Exception) -> Any:
    raise error


async def test_of_many_revocations_at_once_one_is_made(core: Core, bank: Caller) -> None:
    callers = [core.caller() for _ in range(6)]
    card = core.card()
    token = await register(bank, card)
    requests = [revocation(token) for _ in callers]
    outcomes = await asyncio.gather(
        *(
            caller.authorization.RevokeCardToken(request, timeout=CALL_S)
            for caller, request in zip(callers, requests, strict=True)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, pb.RevokeCardTokenResponse) for outcome in outcomes) == 1


async def test_repeat_is_answered_as_the_first_and_other_content_is_refused(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    request = registration(card)
    first = await bank.raw(REGISTER, request)
    assert await asyncio.gather(*(core.caller().raw(REGISTER, request) for _ in range(4))) == [first] * 4
    ending = revocation(request.card_token)
    ended = await bank.raw(REVOKE, ending)
    assert await bank.raw(REVOKE, ending) == ended
    # Long after its end, too.
    assert await bank.raw(REGISTER, request) == first
    trials = [
        (REGISTER, changed(request, card=common_pb2.CardReference(pan=other.pan)), "card"),
        (REGISTER, changed(request, card_token=new_token()), "content"),
        (REVOKE, revocation(request.card_token, request_id=request.request_id), "operation"),
    ]
    for path, reused, field in trials:
        assert await refused(bank.raw(path, reused)) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED", field)


async def test_registration_and_revocation_leave_a_row_with_their_purpose(core: Core, bank: Caller) -> None:
    card = core.card()
    token = await register(bank, card)
    await revoke(bank, token)
    rows = await core.database.fetch(
        "SELECT participant_id, operation_kind, catalogue_item FROM access_log WHERE card_id = $1"
        " ORDER BY block_id, entry_number",
        await core.card_id(card),
    )
    assert [tuple(row) for row in rows] == [
        ("bank-01", OperationKind.REGISTER_CARD_TOKEN, "card.token"),
        ("bank-01", OperationKind.REVOKE_CARD_TOKEN, "card.token"),
    ]


async def test_token_is_kept_nowhere_in_clear(core: Core, bank: Caller) -> None:
    card = core.card()
    token = await register(bank, card)
    await bank.authorize(by_token(token))
    tables = await core.database.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    assert len(tables) > 10
    for (table,) in tables:
        found = await core.database.fetchval(
            f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%' || $1 || '%' OR t::text LIKE '%' || $2 || '%'",
            token,
            token.encode().hex(),
        )
        assert found == 0, table


async def test_row_of_a_token_can_only_be_ended(core: Core, bank: Caller) -> None:
    card = core.card()
    await register(bank, card)
    card_id = await core.card_id(card)
    for change in ("card_id = card_id + 1", "participant_id = 'x'", "registered_at = now()"):
        with pytest.raises(Exception, match="and nothing else"):
            await core.database.execute(f"UPDATE card_tokens SET {change} WHERE card_id = $1", card_id)
    with pytest.raises(Exception, match="append-only"):
        await core.database.execute("DELETE FROM card_tokens WHERE card_id = $1", card_id)
    end = "UPDATE card_tokens SET revoked_at = now() WHERE card_id = $1"
    await core.database.execute(end, card_id)
    with pytest.raises(Exception, match="and nothing else"):
        await core.database.execute(end, card_id)


@pytest.mark.parametrize("status", [CardStatus.LOST, CardStatus.CANCELLED, CardStatus.SEALED])
async def test_card_that_is_not_in_use_gets_no_token_and_loses_one(
    core: Core, bank: Caller, status: CardStatus
) -> None:
    card = core.card()
    token = await register(bank, card)
    await core.set_status(card, status)
    request = registration(card)
    assert await refused(bank.authorization.RegisterCardToken(request, timeout=CALL_S)) == (
        "FAILED_PRECONDITION",
        "CARD_NOT_USABLE",
        "card",
    )
    await revoke(bank, token)


async def test_card_is_named_by_any_of_its_identifiers_and_must_exist(core: Core, bank: Caller) -> None:
    card = core.card()
    for name in ("pan", "identification_code", "identity_number"):
        reference = common_pb2.CardReference(**{name: getattr(card, name)})
        request = registration(card, card=reference)
        await bank.authorization.RegisterCardToken(request, timeout=CALL_S)
        assert decision(await bank.authorize(by_token(request.card_token, 1))) == APPROVED
    unknown = registration(core.unissued_card())
    assert await refused(bank.authorization.RegisterCardToken(unknown, timeout=CALL_S)) == (
        "NOT_FOUND",
        "CARD_UNKNOWN",
        "card",
    )
