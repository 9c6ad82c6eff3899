"""Issue, status, loss and lift of a card through gRPC, and the log row that every access leaves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from core_under_test import (
    CALL_S,
    Caller,
    Core,
    card_issue,
    changed,
    code_issue,
    loss_lift,
    loss_report,
    name_and_number,
    purchase,
    refusal_of,
    status_query,
    verification,
)
from onecard.v1 import cards_pb2, common_pb2
from virtual_card import VirtualCard

from server.cards.directory import CardCipher
from server.cards.rules import CardStatus
from server.engine.operation import OperationKind

FORMAL, TEMPORARY = cards_pb2.LOSS_KIND_FORMAL, cards_pb2.LOSS_KIND_TEMPORARY
NAMES = ("pan", "identification_code", "identity_number")


async def status_of(caller: Caller, card: VirtualCard) -> CardStatus:
    response = await caller.cards.GetCardStatus(status_query(card), timeout=CALL_S)
    return CardStatus(response.status)


@pytest.mark.parametrize("cipher", list(CardCipher), ids=lambda cipher: cipher.name)
async def test_issued_card_works_at_once_with_every_credential(
    core: Core, bank: Caller, cipher: CardCipher
) -> None:
    card = core.unissued_card(cipher=cipher)
    issued = await bank.cards.IssueCard(card_issue(card), timeout=CALL_S)
    assert issued.status == common_pb2.CARD_STATUS_NORMAL
    assert issued.card_id == await core.card_id(card)
    assert await core.balance_minor(card) == 0
    other = core.caller()
    assert (await other.verify(name_and_number=name_and_number(card))).verified
    assert (await other.verify(chip=card.answer(await other.challenge()))).verified
    assert (await other.verify(card_code=await other.card_code(card))).verified
    assert (await other.authorize(purchase(card))).response_code == "51"


@pytest.mark.parametrize("field", ["pan", "identification_code", "card_number", "identity_number"])
async def test_issue_with_a_taken_identifier_names_it(core: Core, bank: Caller, field: str) -> None:
    first, second = core.unissued_card(), core.unissued_card()
    while first.facts.issuing_region != second.facts.issuing_region:
        second = core.unissued_card()
    await bank.cards.IssueCard(card_issue(first), timeout=CALL_S)
    taken = getattr(first.facts, field)
    request = card_issue(second, **{field: taken})
    refusal = await refusal_of(bank.cards.IssueCard(request, timeout=CALL_S))
    assert (refusal.code.name, refusal.reason, refusal.field) == (
        "ALREADY_EXISTS",
        "CARD_ALREADY_ISSUED",
        field,
    )
    assert taken not in refusal.text
    # Nothing of the refused card remains.
    await bank.cards.IssueCard(card_issue(second), timeout=CALL_S)


async def test_of_two_issues_of_one_card_at_once_one_wins(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]

    async def race(number: int) -> list[str]:
        card = core.unissued_card()
        results = await asyncio.gather(
            *(callers[(number + n) % 4].cards.IssueCard(card_issue(card), timeout=CALL_S) for n in range(3)),
            return_exceptions=True,
        )
        return sorted("issued" if hasattr(r, "card_id") else r.code().name for r in results)

    outcomes = await asyncio.gather(*(race(number) for number in range(20)))
    assert outcomes == [["ALREADY_EXISTS", "ALREADY_EXISTS", "issued"]] * 20


@pytest.mark.parametrize("name", NAMES)
async def test_card_is_found_by_any_of_its_names(core: Core, bank: Caller, name: str) -> None:
    card, unknown = core.card(), core.unissued_card()
    reference = common_pb2.CardReference(**{name: getattr(card, name)})
    assert (await bank.cards.GetCardStatus(status_query(card, card=reference), timeout=CALL_S)).status == 2
    await bank.cards.ReportLoss(loss_report(card, card=reference), timeout=CALL_S)
    assert await status_of(bank, card) is CardStatus.LOST
    await bank.cards.LiftLoss(loss_lift(card, card=reference), timeout=CALL_S)
    assert await status_of(bank, card) is CardStatus.NORMAL
    nobody = common_pb2.CardReference(**{name: getattr(unknown, name)})
    for rpc, request in (
        (bank.cards.GetCardStatus, status_query(card, card=nobody)),
        (bank.cards.ReportLoss, loss_report(card, card=nobody)),
        (bank.cards.LiftLoss, loss_lift(card, card=nobody)),
    ):
        refusal = await refusal_of(rpc(request, timeout=CALL_S))
        assert (refusal.code.name, refusal.reason) == ("NOT_FOUND", "CARD_UNKNOWN")


@pytest.mark.parametrize(
    ("status", "request_of", "expected"),
    [
        (CardStatus.NORMAL, lambda c: loss_report(c, kind=FORMAL), CardStatus.LOST),
        (CardStatus.NORMAL, lambda c: loss_report(c, kind=TEMPORARY), CardStatus.TEMPORARILY_LOST),
        (CardStatus.TEMPORARILY_LOST, lambda c: loss_report(c, kind=FORMAL), CardStatus.LOST),
        (CardStatus.TEMPORARILY_LOST, lambda c: loss_report(c, kind=TEMPORARY), None),
        (CardStatus.LOST, lambda c: loss_report(c, kind=FORMAL), None),
        (CardStatus.LOST, lambda c: loss_report(c, kind=TEMPORARY), None),
        (CardStatus.LOST, loss_lift, CardStatus.NORMAL),
        (CardStatus.TEMPORARILY_LOST, loss_lift, CardStatus.NORMAL),
        (CardStatus.NORMAL, loss_lift, None),
        *(
            (s, loss_lift, None)
            for s in (CardStatus.SEALED, CardStatus.APPLICATION_LOCKED, CardStatus.CANCELLED)
        ),
        *(
            (s, loss_report, None)
            for s in (CardStatus.SEALED, CardStatus.APPLICATION_LOCKED, CardStatus.CANCELLED)
        ),
    ],
)
async def test_each_status_admits_its_steps_only(
    core: Core,
    bank: Caller,
    status: CardStatus,
    request_of: Callable[[VirtualCard], Any],
    expected: CardStatus | None,
) -> None:
    card = core.card()
    await core.set_status(card, status)
    request = request_of(card)
    rpc = bank.cards.LiftLoss if "kind" not in request.DESCRIPTOR.fields_by_name else bank.cards.ReportLoss
    if expected is None:
        refusal = await refusal_of(rpc(request, timeout=CALL_S))
        assert (refusal.code.name, refusal.reason) == ("FAILED_PRECONDITION", "CARD_STATE_CONFLICT")
        assert await core.stored(request.request_id) == 0
    else:
        assert (await rpc(request, timeout=CALL_S)).status == expected
    assert await status_of(bank, card) is (expected or status)


async def test_of_many_loss_reports_at_once_one_is_made(core: Core) -> None:
    callers = [core.caller() for _ in range(4)]
    card = core.card()
    results = await asyncio.gather(
        *(caller.cards.ReportLoss(loss_report(card), timeout=CALL_S) for caller in callers for _ in range(3)),
        return_exceptions=True,
    )
    made = [result for result in results if not isinstance(result, BaseException)]
    assert len(made) == 1
    assert {r.code().name for r in results if isinstance(r, BaseException)} == {"FAILED_PRECONDITION"}


async def test_nothing_is_approved_after_the_answer_to_a_loss_report(core: Core) -> None:
    """Purchases pour in on other connections while the report is made: none sent after its answer is approved."""
    callers = [core.caller() for _ in range(4)]
    for _ in range(5):
        card = core.card()
        reported = asyncio.Event()
        late: list[str] = []

        async def pour(caller: Caller, card: VirtualCard, reported: asyncio.Event, late: list[str]) -> None:
            for _ in range(12):
                was_reported = reported.is_set()
                response = await caller.authorize(purchase(card, 1))
                if was_reported:
                    late.append(response.response_code)

        pouring = [asyncio.create_task(pour(caller, card, reported, late)) for caller in callers]
        await asyncio.sleep(0.01)
        await callers[0].cards.ReportLoss(loss_report(card), timeout=CALL_S)
        reported.set()
        await asyncio.gather(*pouring)
        assert late
        assert set(late) == {"41"}


async def test_expired_card_says_so(core: Core, bank: Caller) -> None:
    card = core.card()
    statement = "UPDATE cards SET expires_on = '2020-01-01' WHERE card_id = $1"
    await core.database.execute(statement, await core.card_id(card))
    response = await bank.cards.GetCardStatus(status_query(card), timeout=CALL_S)
    assert (response.status, response.expired) == (CardStatus.NORMAL, True)


async def accesses(core: Core, card: VirtualCard) -> list[tuple[str, int, str, int]]:
    rows = await core.database.fetch(
        "SELECT participant_id, operation_kind, catalogue_item, catalogue_item_version FROM access_log"
        " WHERE card_id = $1 ORDER BY block_id, entry_number",
        await core.card_id(card),
    )
    return [tuple(row) for row in rows]


async def test_every_access_leaves_one_row_and_a_repeat_none(
    core: Core, bank: Caller, other_bank: Caller
) -> None:
    card = core.unissued_card()
    issue, verify, code = (
        card_issue(card),
        verification(name_and_number=name_and_number(card)),
        code_issue(card),
    )
    report, lift = loss_report(card), loss_lift(card)
    await bank.cards.IssueCard(issue, timeout=CALL_S)
    await other_bank.cards.GetCardStatus(status_query(card), timeout=CALL_S)
    await other_bank.cards.GetCardStatus(status_query(card), timeout=CALL_S)
    await bank.identity.VerifyIdentity(verify, timeout=CALL_S)
    await bank.identity.IssueCardCode(code, timeout=CALL_S)
    await bank.cards.ReportLoss(report, timeout=CALL_S)
    await bank.cards.LiftLoss(lift, timeout=CALL_S)
    expected = [
        ("bank-01", OperationKind.ISSUE_CARD, "card.apply", 1),
        ("bank-02", OperationKind.GET_CARD_STATUS, "card.status", 1),
        ("bank-02", OperationKind.GET_CARD_STATUS, "card.status", 1),
        ("bank-01", OperationKind.VERIFY_IDENTITY, "identity.counter", 1),
        ("bank-01", OperationKind.ISSUE_CARD_CODE, "card.code", 1),
        ("bank-01", OperationKind.REPORT_LOSS, "card.loss", 1),
        ("bank-01", OperationKind.LIFT_LOSS, "card.loss", 1),
    ]
    assert await accesses(core, card) == expected
    # A repeat shows nothing new about the person.
    for rpc, request in (
        (bank.identity.VerifyIdentity, verify),
        (bank.cards.ReportLoss, report),
        (bank.cards.IssueCard, issue),
    ):
        await rpc(request, timeout=CALL_S)
    # A refusal tells nothing about the person.
    await refusal_of(bank.cards.LiftLoss(loss_lift(card), timeout=CALL_S))
    await refusal_of(bank.cards.ReportLoss(changed(report, kind=TEMPORARY), timeout=CALL_S))
    assert await accesses(core, card) == expected


async def test_access_row_and_answer_are_of_one_transaction(core: Core, bank: Caller) -> None:
    card = core.card()
    request = verification(name_and_number=name_and_number(card), terminal_id="T-LOG-1")
    await bank.identity.VerifyIdentity(request, timeout=CALL_S)
    terminal, transactions = await core.database.fetchrow(
        "SELECT a.terminal_id, b.xmin::text = o.xmin::text FROM access_log AS a JOIN access_blocks AS b"
        " USING (block_id) JOIN operations AS o USING (request_id) WHERE a.request_id = $1",
        request.request_id,
    )
    assert (terminal, transactions) == ("T-LOG-1", True)


async def test_verification_of_an_unknown_person_is_logged_without_a_card(core: Core, bank: Caller) -> None:
    request = verification(name_and_number=name_and_number(core.unissued_card()))
    await bank.identity.VerifyIdentity(request, timeout=CALL_S)
    rows = await core.database.fetch(
        "SELECT card_id, participant_id FROM access_log WHERE request_id = $1", request.request_id
    )
    assert [tuple(row) for row in rows] == [(None, "bank-01")]


@pytest.mark.parametrize("statement", ["UPDATE {} SET shard = 0", "DELETE FROM {}"])
@pytest.mark.parametrize("table", ["operations", "postings", "access_blocks"])
async def test_history_cannot_be_changed(core: Core, bank: Caller, table: str, statement: str) -> None:
    await bank.authorize(purchase(core.card()))
    await bank.verify(name_and_number=name_and_number(core.card()))
    with pytest.raises(Exception, match="append-only"):
        await core.database.execute(statement.format(table))
