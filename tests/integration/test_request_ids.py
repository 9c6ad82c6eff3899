"""One outcome per request id: the same bytes again, whatever happened since, and no other content under the same id."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from core_under_test import (
    CALL_S,
    Caller,
    Core,
    authentication,
    card_issue,
    changed,
    code_issue,
    deposit,
    loss_lift,
    loss_report,
    name_and_number,
    purchase,
    refusal_of,
    verification,
)
from onecard.v1 import card_authentication_pb2, cards_pb2, common_pb2, identity_pb2
from virtual_card import VirtualCard

AUTHORIZE = "AuthorizationService/Authorize"


def cryptogram(card: VirtualCard) -> card_authentication_pb2.CardCryptogram:
    return card_authentication_pb2.CardCryptogram(pan=card.pan, chip=card.sign(0))


# Path and request on a card that is in use; IssueCard is tried apart.
MUTATIONS: dict[str, tuple[str, Callable[[VirtualCard], Any]]] = {
    "purchase": (AUTHORIZE, purchase),
    "deposit": (AUTHORIZE, deposit),
    "verify": (
        "IdentityService/VerifyIdentity",
        lambda card: verification(name_and_number=name_and_number(card)),
    ),
    "issue code": ("IdentityService/IssueCardCode", code_issue),
    "authenticate": (
        "CardAuthenticationService/AuthenticateCard",
        lambda card: authentication(cryptogram=cryptogram(card)),
    ),
    "report loss": ("CardService/ReportLoss", loss_report),
}


@pytest.mark.parametrize("name", MUTATIONS)
async def test_repeat_gives_the_same_bytes_and_no_second_effect(core: Core, bank: Caller, name: str) -> None:
    path, make = MUTATIONS[name]
    card = core.card()
    request = make(card)
    first = await bank.raw(path, request)
    balance = await core.balance_minor(card)
    assert await core.caller().raw(path, request) == first
    assert await asyncio.gather(*(bank.raw(path, request) for _ in range(5))) == [first] * 5
    assert await core.stored(request.request_id) == 1
    assert await core.balance_minor(card) == balance


async def test_repeated_issue_gives_the_same_bytes_and_one_card(core: Core, bank: Caller) -> None:
    request = card_issue(core.unissued_card())
    path = "CardService/IssueCard"
    answers = await asyncio.gather(*(core.caller().raw(path, request) for _ in range(6)))
    assert len(set(answers)) == 1
    assert await bank.raw(path, request) == answers[0]
    count = await core.database.fetchval(
        "SELECT count(*) FROM cards WHERE atr_historical_bytes = $1", request.atr_historical_bytes
    )
    assert count == 1


async def test_lifted_loss_keeps_its_answer_after_the_next_loss(core: Core, bank: Caller) -> None:
    card = core.card()
    report, lift = loss_report(card), loss_lift(card)
    reported = await bank.cards.ReportLoss(report, timeout=CALL_S)
    lifted = await bank.cards.LiftLoss(lift, timeout=CALL_S)
    assert await bank.cards.ReportLoss(report, timeout=CALL_S) == reported
    response = await bank.authorize(purchase(card))
    assert response.response_code == "00"
    await bank.cards.ReportLoss(loss_report(card), timeout=CALL_S)
    assert await bank.cards.LiftLoss(lift, timeout=CALL_S) == lifted
    assert (await bank.authorize(purchase(card))).response_code == "41"


@pytest.mark.parametrize("make", [purchase, deposit])
async def test_twins_on_every_connection_at_once_join_one_outcome(
    core: Core, make: Callable[..., Any]
) -> None:
    callers = [core.caller() for _ in range(4)]
    requests = [make(card) for card in [core.card(), core.card(), core.unissued_card()] for _ in range(8)]
    twins = [caller.raw(AUTHORIZE, request) for request in requests for caller in callers]
    answers = await asyncio.gather(*twins)
    for number, request in enumerate(requests):
        assert len(set(answers[number * 4 : number * 4 + 4])) == 1
        assert await core.stored(request.request_id) == 1


async def test_repeat_in_frames_and_within_one_frame_gives_the_same_bytes(core: Core, bank: Caller) -> None:
    request, unknown = purchase(core.card()), purchase(core.unissued_card())
    frame = [request, unknown, request, unknown]
    answers = await bank.frames(frame, frame)
    unary = [await bank.raw(AUTHORIZE, request), await bank.raw(AUTHORIZE, unknown)]
    for answer in answers:
        encoded = [result.response.SerializeToString() for result in answer.results]
        assert encoded == unary * 2
    assert await core.stored(request.request_id) == await core.stored(unknown.request_id) == 1


async def test_decline_stays_declined_after_the_cause_is_gone(core: Core, bank: Caller) -> None:
    card = core.unissued_card()
    request = purchase(card, 500)
    unknown = await bank.raw(AUTHORIZE, request)
    await bank.cards.IssueCard(card_issue(card), timeout=CALL_S)
    poor_request = purchase(card, 500)
    poor = await bank.authorize(poor_request)
    assert poor.response_code == "51"
    await bank.authorize(deposit(card, 10_000))
    assert await bank.raw(AUTHORIZE, request) == unknown
    assert await bank.authorize(poor_request) == poor
    assert (await bank.authorize(purchase(card, 500))).response_code == "00"
    assert await core.balance_minor(card) == 9_500


OTHER_CONTENT: dict[str, tuple[str, Callable[[Any, VirtualCard], Any]]] = {
    "amount": ("amount_minor", lambda r, _: changed(r, amount_minor=987_654)),
    "card": ("pan", lambda r, other: changed(r, pan=other.pan)),
    "terminal": ("terminal_id", lambda r, _: changed(r, terminal_id="T0000987")),
    "merchant": ("merchant_id", lambda r, _: changed(r, merchant_id="M87654")),
    "stan": ("stan", lambda r, _: changed(r, stan=987_654)),
    "time": ("terminal_time_unix_ms", lambda r, _: changed(r, terminal_time_unix_ms=987_654)),
    "arqc": ("chip", lambda r, _: changed(r, chip=changed(r.chip, arqc=b"\x98" * 8))),
    "atc": ("chip", lambda r, _: changed(r, chip=changed(r.chip, atc=9_876))),
    "iad": ("chip", lambda r, _: changed(r, chip=changed(r.chip, iad=bytes(9)))),
    "psn": ("chip", lambda r, _: changed(r, chip=changed(r.chip, psn="01"))),
    "operation": ("operation", lambda r, _: changed(r, operation=2, chip=None)),
}


@pytest.mark.parametrize("name", OTHER_CONTENT)
async def test_other_content_under_an_id_names_the_field_and_never_a_value(
    core: Core, bank: Caller, name: str
) -> None:
    field, change = OTHER_CONTENT[name]
    card, other = core.card(), core.card()
    request = purchase(card, 432_100)
    first = await bank.authorize(request)
    reused = change(request, other)
    refusal = await refusal_of(bank.authorize(reused))
    assert (refusal.code.name, refusal.reason, refusal.field) == (
        "ALREADY_EXISTS",
        "REQUEST_ID_REUSED",
        field,
    )
    for secret in ("987654", "432100", "M87654", "T0000987", card.pan, other.pan, request.request_id):
        assert secret not in refusal.text
    # In a frame the same, also beside its twin.
    (answer,) = await bank.frames([reused, request])
    error = answer.results[0].error
    assert (error.code, error.reason, error.field) == (6, "REQUEST_ID_REUSED", field)
    assert answer.results[1].response == first
    assert await core.balance_minor(card) == first.available_minor
    assert await core.stored(request.request_id) == 1


@pytest.mark.parametrize("name", OTHER_CONTENT)
async def test_other_content_beside_its_twin_in_a_frame_names_the_field(
    core: Core, bank: Caller, name: str
) -> None:
    field, change = OTHER_CONTENT[name]
    request = purchase(core.card(), 432_100)
    (answer,) = await bank.frames([request, change(request, core.card()), request])
    assert answer.results[0].response.response_code == "00"
    assert answer.results[2] == answer.results[0]
    assert (answer.results[1].error.reason, answer.results[1].error.field) == ("REQUEST_ID_REUSED", field)


async def test_id_of_another_caller_is_refused(core: Core, bank: Caller, other_bank: Caller) -> None:
    request = purchase(core.card())
    await bank.authorize(request)
    refusal = await refusal_of(other_bank.authorize(request))
    assert (refusal.reason, refusal.field) == ("REQUEST_ID_REUSED", "caller")


async def test_id_of_another_rpc_is_refused(core: Core, bank: Caller) -> None:
    card = core.card()
    request = purchase(card)
    await bank.authorize(request)
    report = loss_report(card, request_id=request.request_id)
    refusal = await refusal_of(bank.cards.ReportLoss(report, timeout=CALL_S))
    assert (refusal.reason, refusal.field) == ("REQUEST_ID_REUSED", "operation")
    assert (await bank.authorize(purchase(card))).response_code == "00"


async def test_other_content_of_requests_without_money_is_refused(core: Core, bank: Caller) -> None:
    card, other = core.card(), core.card()
    reference = common_pb2.CardReference(pan=other.pan)
    verify = verification(name_and_number=name_and_number(card), terminal_id="T1")
    issue, loss, issued = code_issue(card), loss_report(card), card_issue(core.unissued_card())
    identity, cards = bank.identity, bank.cards
    trials: list[tuple[Any, Any, Any, str]] = [
        (identity.VerifyIdentity, verify, changed(verify, terminal_id="T2"), "terminal_id"),
        (
            identity.VerifyIdentity,
            verify,
            changed(verify, name_and_number=name_and_number(other)),
            "card",
        ),
        (identity.VerifyIdentity, verify, changed(verify, catalogue_item="medical.visit"), "content"),
        (identity.IssueCardCode, issue, changed(issue, use=identity_pb2.CARD_CODE_USE_PAYMENT), "content"),
        (identity.IssueCardCode, issue, changed(issue, card=reference), "card"),
        (cards.ReportLoss, loss, changed(loss, card=reference), "card"),
        (cards.ReportLoss, loss, changed(loss, kind=cards_pb2.LOSS_KIND_TEMPORARY), "content"),
        (cards.IssueCard, issued, changed(issued, name="赵钱"), "content"),
    ]
    for rpc, first, second, field in trials:
        answer = await rpc(first, timeout=CALL_S)
        refusal = await refusal_of(rpc(second, timeout=CALL_S))
        assert (refusal.reason, refusal.field) == ("REQUEST_ID_REUSED", field)
        assert await rpc(first, timeout=CALL_S) == answer
    assert (await bank.authorize(purchase(other))).response_code == "00"


async def test_one_id_on_two_cards_at_once_has_one_outcome(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]

    async def race(number: int) -> set[str]:
        first = purchase(core.card(), terminal_id="RACES", stan=number + 1)
        second = purchase(core.card(), request_id=first.request_id, terminal_id="RACES", stan=500 + number)
        results = await asyncio.gather(
            callers[number % 4].authorize(first),
            callers[(number + 1) % 4].authorize(second),
            return_exceptions=True,
        )
        assert await core.stored(first.request_id) == 1
        return {getattr(result, "response_code", None) or result.code().name for result in results}

    outcomes = await asyncio.gather(*(race(number) for number in range(60)))
    assert outcomes == [{"00", "ALREADY_EXISTS"}] * 60
