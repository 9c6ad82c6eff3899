"""One builder for each kind of money operation: a valid request, that the core approves on a card in use."""

from collections.abc import Callable
from typing import Any

from core_under_test import CALL_S, Caller, Core, card_issue, deposit, purchase
from onecard.v1 import authorization_pb2 as pb
from virtual_card import VirtualCard

Request = pb.AuthorizeRequest

PURCHASE = pb.OPERATION_TYPE_PURCHASE
DEPOSIT = pb.OPERATION_TYPE_DEPOSIT
CASH_WITHDRAWAL = pb.OPERATION_TYPE_CASH_WITHDRAWAL
TRANSFER = pb.OPERATION_TYPE_TRANSFER
TAP = pb.OPERATION_TYPE_TAP
PRE_AUTHORIZATION = pb.OPERATION_TYPE_PRE_AUTHORIZATION
INCREMENT = pb.OPERATION_TYPE_INCREMENT
COMPLETION = pb.OPERATION_TYPE_COMPLETION
VOID = pb.OPERATION_TYPE_VOID
REFUND = pb.OPERATION_TYPE_REFUND
REVERSAL = pb.OPERATION_TYPE_REVERSAL
BENEFIT_CREDIT = pb.OPERATION_TYPE_BENEFIT_CREDIT
BALANCE_INQUIRY = pb.OPERATION_TYPE_BALANCE_INQUIRY

APPROVED = ("00", "APPROVED")
# Classes of the message type.
MTI_AUTHORIZATION, MTI_FINANCIAL, MTI_REVERSAL = 1, 2, 4


def decision(response: pb.AuthorizeResponse) -> tuple[str, str]:
    """Response code and the reason's name."""
    return response.response_code, pb.DecisionReason.Name(response.reason).removeprefix("DECISION_REASON_")


def cash_withdrawal(card: VirtualCard, amount_minor: int = 100, **fields: Any) -> Request:
    return purchase(card, amount_minor, operation=CASH_WITHDRAWAL, **fields)


def transfer(card: VirtualCard, to: VirtualCard, amount_minor: int = 100, **fields: Any) -> Request:
    return purchase(card, amount_minor, **{"operation": TRANSFER, "to_pan": to.pan} | fields)


def tap(card: VirtualCard, amount_minor: int = 100, **fields: Any) -> Request:
    return purchase(card, amount_minor, operation=TAP, **fields)


def pre_authorization(card: VirtualCard, amount_minor: int = 100, **fields: Any) -> Request:
    return purchase(card, amount_minor, operation=PRE_AUTHORIZATION, **fields)


def balance_inquiry(card: VirtualCard, **fields: Any) -> Request:
    return purchase(card, 0, operation=BALANCE_INQUIRY, **fields)


def benefit_credit(card: VirtualCard, amount_minor: int = 100, **fields: Any) -> Request:
    return deposit(card, amount_minor, operation=BENEFIT_CREDIT, **fields)


def by_request_id(original: Request) -> pb.OriginalReference:
    return pb.OriginalReference(request_id=original.request_id)


def by_rrn(response: pb.AuthorizeResponse) -> pb.OriginalReference:
    return pb.OriginalReference(rrn=response.rrn)


def mti_class_of(request: Request) -> int:
    """As the protos describe it."""
    if request.operation in {PRE_AUTHORIZATION, INCREMENT}:
        return MTI_AUTHORIZATION
    return MTI_REVERSAL if request.operation == REVERSAL else MTI_FINANCIAL


def by_stan(original: Request, **fields: Any) -> pb.OriginalReference:
    """By STAN, at the follower's own terminal unless ``fields`` say another."""
    parts = {"stan": original.stan, "mti_class": mti_class_of(original)}
    return pb.OriginalReference(**parts | fields)


def follow(
    kind: int, card: VirtualCard, original: Request, amount_minor: int = 0, /, **fields: Any
) -> Request:
    """What follows ``original``, named by its request id unless ``fields`` name it otherwise."""
    parts: dict[str, Any] = {"operation": kind, "original": by_request_id(original)}
    return deposit(card, amount_minor, **parts | fields)


def increment(card: VirtualCard, original: Request, amount_minor: int = 100, /, **fields: Any) -> Request:
    return follow(INCREMENT, card, original, amount_minor, **fields)


def completion(card: VirtualCard, original: Request, amount_minor: int = 100, /, **fields: Any) -> Request:
    return follow(COMPLETION, card, original, amount_minor, **fields)


def void(card: VirtualCard, original: Request, /, **fields: Any) -> Request:
    return follow(VOID, card, original, **fields)


def refund(card: VirtualCard, original: Request, amount_minor: int = 100, /, **fields: Any) -> Request:
    return follow(REFUND, card, original, amount_minor, **fields)


def reversal(card: VirtualCard, original: Request, amount_minor: int = 0, /, **fields: Any) -> Request:
    """Of all that is left unless an amount is given; of a transfer, the card that money went to is repeated."""
    parts = {"to_pan": original.to_pan} if original.to_pan else {}
    return follow(REVERSAL, card, original, amount_minor, **parts | fields)


def advice(make: Callable[..., Request], *arguments: Any, **fields: Any) -> Request:
    """The same as an advice, without chip data."""
    return make(*arguments, **{"chip": None, "is_advice": True} | fields)


async def approved(caller: Caller, request: Request) -> pb.AuthorizeResponse:
    """The answer to a request that must be approved as it stands."""
    response = await caller.authorize(request)
    assert decision(response) == APPROVED
    return response


async def declined(caller: Caller, request: Request) -> tuple[str, str]:
    """Code and reason of a request that must take nothing, give nothing and tell nothing."""
    response = await caller.authorize(request)
    assert (response.approved_minor, response.authorization_code) == (0, "")
    assert len(response.rrn) == 12
    return decision(response)


async def card_holding(core: Core, caller: Caller, amount_minor: int) -> VirtualCard:
    """A new card with this much money, and limits of its own that no test meets."""
    card = core.unissued_card()
    limits = {"transaction_amount_max_minor": 10**9, "day_amount_max_minor": 10**10}
    await caller.cards.IssueCard(card_issue(card, **limits), timeout=CALL_S)
    if amount_minor:
        await approved(caller, deposit(card, amount_minor))
    return card
