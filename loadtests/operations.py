"""What people do with the card, each as the RPCs it takes: the same steps for every scene.

Every answer is acknowledged with what the core must have stored for it. A call without an answer raises and is not
sent again: a retry would hide it from the report.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from onecard.v1 import authorization_pb2, card_authentication_pb2, cards_pb2, common_pb2, identity_pb2

from clients import service_client as rpcs
from clients.channel import Request, Response, UnaryRpc, new_request_id
from clients.demo.residents import Resident
from clients.money_requests import SHANGHAI_OFFSET_S, StanCounter
from clients.purpose import CARD_CODE, CARD_LOSS, CARD_STATUS, COUNTER_IDENTITY, MEDICAL_VISIT
from clients.terminal import APPROVED, verify_answer
from loadtests.card_pool import CardPool, CodeOnPhone
from server.engine.operation import OperationKind

# The core's codes live 60 s; ten less leave time for the call.
CODE_USABLE_S: Final = 50.0
# Reason of rows that are done or do not exist at all.
DONE: Final = 1
PURCHASE_MINOR: Final = (100, 5_000)
TAP_MINOR: Final = (100, 400)


class Calls(Protocol):
    """The way to the core."""

    def send(self, rpc: UnaryRpc[Request, Response], request: Request) -> Response:
        """One call, once.

        Raises:
            OneCardCallError: no answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What the core must have stored for an answer.

    Args:
        kind: of the operation.
        request_id: under which it is stored; empty for reads, which leave an access entry only.
        reason: as answered.
        amount_minor: of money operations, in 分.
    """

    kind: OperationKind
    request_id: str = ""
    reason: int = DONE
    amount_minor: int | None = None


class Desk:
    """One place where cards are used: a till, a counter, a gate. One operation at a time.

    Args:
        calls: the way to the core.
        pool: the cards.
        terminal_id: its own; trace numbers count below it.
        rng: of amounts.
        acknowledge: takes what the core has answered.
        now_s: a clock that never goes back, seconds.
    """

    def __init__(
        self,
        calls: Calls,
        pool: CardPool,
        *,
        terminal_id: str,
        rng: random.Random,
        acknowledge: Callable[[Acknowledgement], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._pool = pool
        self._terminal_id = terminal_id
        self._rng = rng
        self._acknowledge = acknowledge
        self._now_s = now_s
        self._stans = StanCounter()

    def perform(self, operation: str) -> str:
        """Does one operation; returns why it was declined, or an empty text.

        Raises:
            OneCardCallError: a call has no answer.
            IssuerNotGenuineError: the answer to a chip is not the issuer's.
            NoFreeCardError: too few cards.
        """
        return _STEPS[operation](self)

    def purchase(self) -> str:
        """A purchase at a till."""
        return self._pay(*PURCHASE_MINOR)

    def tap(self) -> str:
        """A fare or an entrance: a small purchase without PIN."""
        return self._pay(*TAP_MINOR)

    def authenticate_card(self) -> str:
        """The chip answers a fresh challenge: two calls."""
        resident = self._take()
        try:
            challenge = self._calls.send(
                rpcs.CREATE_CHALLENGE, card_authentication_pb2.CreateChallengeRequest()
            )
            request = card_authentication_pb2.AuthenticateCardRequest(
                request_id=new_request_id(),
                catalogue_item=MEDICAL_VISIT.catalogue_item,
                catalogue_item_version=MEDICAL_VISIT.catalogue_item_version,
                answer=resident.chip.answer(challenge),
                terminal_id=self._terminal_id,
            )
            response = self._calls.send(rpcs.AUTHENTICATE_CARD, request)
        finally:
            self._pool.give_back(resident)
        self._answered(OperationKind.AUTHENTICATE_CARD, request.request_id, reason=response.reason)
        if response.authenticated:
            return ""
        name = card_authentication_pb2.CardAuthenticationReason.Name(response.reason)
        return name.removeprefix("CARD_AUTHENTICATION_REASON_")

    def issue_card_code(self) -> str:
        """A holder opens the code on the phone."""
        self._pool.keep_code(self._open_code())
        return ""

    def verify_code(self) -> str:
        """A counter reads the code; when no phone shows one, a holder opens one first."""
        code = self._pool.show_code(now_s=self._now_s()) or self._open_code()
        try:
            return self._verify(self._identity_request(card_code=code.card_code))
        finally:
            self._pool.give_back(code.resident)

    def verify_name_number(self) -> str:
        """A holder without card or phone states name and number."""
        resident = self._take()
        stated = identity_pb2.NameAndNumber(name=resident.name, identity_number=resident.identity_number)
        try:
            return self._verify(self._identity_request(name_and_number=stated))
        finally:
            self._pool.give_back(resident)

    def card_status(self) -> str:
        """An agency asks for the status of a card, by identity number."""
        resident = self._take()
        request = cards_pb2.GetCardStatusRequest(
            catalogue_item=CARD_STATUS.catalogue_item,
            catalogue_item_version=CARD_STATUS.catalogue_item_version,
            card=resident.by_identity_number,
        )
        try:
            response = self._calls.send(rpcs.GET_CARD_STATUS, request)
        finally:
            self._pool.give_back(resident)
        self._acknowledge(Acknowledgement(kind=OperationKind.GET_CARD_STATUS))
        # Lost cards lie apart: any other status is one that nobody set.
        if response.status == common_pb2.CARD_STATUS_NORMAL:
            return ""
        return common_pb2.CardStatus.Name(response.status)

    def change_life(self) -> str:
        """A card is reported lost, or one that was is found again: in turn."""
        # A card whose report or lift has no answer stays away: nobody knows its status.
        lost = self._pool.find_lost()
        if lost is None:
            resident = self._take()
            self._report_loss(resident)
            self._pool.lose(resident)
        else:
            self._lift_loss(lost)
            self._pool.give_back(lost)
        return ""

    def _take(self) -> Resident:
        return self._pool.take(now_s=self._now_s())

    def _pay(self, amount_minor_min: int, amount_minor_max: int) -> str:
        resident = self._take()
        try:
            request = self._purchase_request(
                resident, amount_minor=self._rng.randint(amount_minor_min, amount_minor_max)
            )
            response = self._calls.send(rpcs.AUTHORIZE, request)
        finally:
            self._pool.give_back(resident)
        self._answered(
            OperationKind.PURCHASE,
            request.request_id,
            reason=response.reason,
            amount_minor=request.amount_minor,
        )
        verify_answer(resident.chip, request, response)
        if response.response_code == APPROVED:
            return ""
        name = authorization_pb2.DecisionReason.Name(response.reason).removeprefix("DECISION_REASON_")
        return f"{response.response_code} {name}"

    def _purchase_request(
        self, resident: Resident, *, amount_minor: int
    ) -> authorization_pb2.AuthorizeRequest:
        now_s = time.time()
        transaction_date = time.strftime("%y%m%d", time.gmtime(now_s + SHANGHAI_OFFSET_S))
        return authorization_pb2.AuthorizeRequest(
            request_id=new_request_id(),
            operation=authorization_pb2.OPERATION_TYPE_PURCHASE,
            pan=resident.chip.pan,
            amount_minor=amount_minor,
            currency_code="CNY",
            terminal_id=self._terminal_id,
            merchant_id="LOAD",
            stan=self._stans.next(),
            terminal_time_unix_ms=int(now_s * 1000),
            chip=resident.chip.sign(amount_minor=amount_minor, transaction_date=transaction_date),
        )

    def _identity_request(
        self, *, card_code: str = "", name_and_number: identity_pb2.NameAndNumber | None = None
    ) -> identity_pb2.VerifyIdentityRequest:
        request = identity_pb2.VerifyIdentityRequest(
            request_id=new_request_id(),
            catalogue_item=COUNTER_IDENTITY.catalogue_item,
            catalogue_item_version=COUNTER_IDENTITY.catalogue_item_version,
            terminal_id=self._terminal_id,
            name_and_number=name_and_number,
        )
        if card_code:
            request.card_code = card_code
        return request

    def _verify(self, request: identity_pb2.VerifyIdentityRequest) -> str:
        response = self._calls.send(rpcs.VERIFY_IDENTITY, request)
        self._answered(OperationKind.VERIFY_IDENTITY, request.request_id, reason=response.reason)
        if response.verified:
            return ""
        return identity_pb2.IdentityReason.Name(response.reason).removeprefix("IDENTITY_REASON_")

    def _open_code(self) -> CodeOnPhone:
        resident = self._take()
        request = identity_pb2.IssueCardCodeRequest(
            request_id=new_request_id(),
            catalogue_item=CARD_CODE.catalogue_item,
            catalogue_item_version=CARD_CODE.catalogue_item_version,
            card=resident.by_pan,
            use=identity_pb2.CARD_CODE_USE_INQUIRY,
        )
        asked_at_s = self._now_s()
        try:
            response = self._calls.send(rpcs.ISSUE_CARD_CODE, request)
        except BaseException:
            self._pool.give_back(resident)
            raise
        self._answered(OperationKind.ISSUE_CARD_CODE, request.request_id)
        return CodeOnPhone(resident, response.card_code, asked_at_s + CODE_USABLE_S)

    def _report_loss(self, resident: Resident) -> None:
        request = cards_pb2.ReportLossRequest(
            request_id=new_request_id(),
            catalogue_item=CARD_LOSS.catalogue_item,
            catalogue_item_version=CARD_LOSS.catalogue_item_version,
            card=resident.by_identity_number,
            kind=cards_pb2.LOSS_KIND_FORMAL,
        )
        self._calls.send(rpcs.REPORT_LOSS, request)
        self._answered(OperationKind.REPORT_LOSS, request.request_id)

    def _lift_loss(self, resident: Resident) -> None:
        request = cards_pb2.LiftLossRequest(
            request_id=new_request_id(),
            catalogue_item=CARD_LOSS.catalogue_item,
            catalogue_item_version=CARD_LOSS.catalogue_item_version,
            card=resident.by_identity_number,
        )
        self._calls.send(rpcs.LIFT_LOSS, request)
        self._answered(OperationKind.LIFT_LOSS, request.request_id)

    def _answered(
        self, kind: OperationKind, request_id: str, *, reason: int = DONE, amount_minor: int | None = None
    ) -> None:
        self._acknowledge(
            Acknowledgement(kind=kind, request_id=request_id, reason=reason, amount_minor=amount_minor)
        )


# Names are those of the traffic model; it has others that the core has no RPC for.
_STEPS: Final[dict[str, Callable[[Desk], str]]] = {
    "authenticate_card": Desk.authenticate_card,
    "issue_card_code": Desk.issue_card_code,
    "verify_code": Desk.verify_code,
    "verify_name_number": Desk.verify_name_number,
    "card_status": Desk.card_status,
    "financial": Desk.purchase,
    "lifecycle": Desk.change_life,
    "tap": Desk.tap,
}
POSSIBLE: Final = frozenset(_STEPS)
