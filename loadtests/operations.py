"""What people do with the card, each as the RPCs it takes: the same steps for every scene.

Every answer is acknowledged with what the core must have stored for it. A call without an answer raises and is not
sent again: a retry would hide it from the report.
"""

import random
import time
from collections.abc import Callable, Mapping
from typing import Final

from onecard.v1 import card_authentication_pb2, cards_pb2, common_pb2, cryptography_pb2, identity_pb2

from clients.channel import new_request_id
from clients.demo.residents import Resident
from clients.money_requests import MoneyRequests
from clients.pin_pad import PinPad
from clients.purpose import CARD_CODE, CARD_LOSS, CARD_PIN, CARD_STATUS, COUNTER_IDENTITY, MEDICAL_VISIT
from clients.services.card_authentication import AUTHENTICATE_CARD, CREATE_CHALLENGE
from clients.services.cards import GET_CARD_STATUS, LIFT_LOSS, REPORT_LOSS
from clients.services.cryptography import VERIFY_PIN
from clients.services.identity import ISSUE_CARD_CODE, VERIFY_IDENTITY
from clients.terminal import APPROVED
from loadtests.card_pool import CardPool, CodeOnPhone
from loadtests.core_calls import DONE, Acknowledgement, Calls
from loadtests.till import Till
from server.engine.operation import OperationKind

# The core's codes live 60 s; ten less leave time for the call.
CODE_USABLE_S: Final = 50.0


class Desk:
    """One place where cards are used: a till, a counter, a gate. One operation at a time.

    Args:
        calls: the way to the core.
        pool: the cards.
        terminal_id: its own; trace numbers count below it.
        pad: its PIN pad.
        pins: of the cards, by PAN.
        rng: of kinds and amounts.
        acknowledge: takes what the core has answered.
        now_s: a clock that never goes back, seconds.
    """

    def __init__(
        self,
        calls: Calls,
        pool: CardPool,
        *,
        terminal_id: str,
        pad: PinPad,
        pins: Mapping[str, str],
        rng: random.Random,
        acknowledge: Callable[[Acknowledgement], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._pool = pool
        self._terminal_id = terminal_id
        self._pad = pad
        self._pins = pins
        self._acknowledge = acknowledge
        self._now_s = now_s
        self.till = Till(
            calls,
            pool,
            requests=MoneyRequests(terminal_id=terminal_id, merchant_id="LOAD"),
            enter_pin=self._enter_pin,
            rng=rng,
            acknowledge=acknowledge,
            now_s=now_s,
        )

    def perform(self, operation: str) -> str:
        """Does one operation; returns why it was declined, or an empty text.

        Raises:
            OneCardCallError: a call has no answer.
            IssuerNotGenuineError: the answer to a chip is not the issuer's.
            NoFreeCardError: too few cards.
        """
        return _STEPS[operation](self)

    def authenticate_card(self) -> str:
        """The chip answers a fresh challenge: two calls."""
        resident = self._take()
        try:
            challenge = self._calls.send(CREATE_CHALLENGE, card_authentication_pb2.CreateChallengeRequest())
            request = card_authentication_pb2.AuthenticateCardRequest(
                request_id=new_request_id(),
                catalogue_item=MEDICAL_VISIT.catalogue_item,
                catalogue_item_version=MEDICAL_VISIT.catalogue_item_version,
                answer=resident.chip.answer(challenge),
                terminal_id=self._terminal_id,
            )
            response = self._calls.send(AUTHENTICATE_CARD, request)
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

    def verify_pin(self) -> str:
        """A counter asks for the PIN."""
        resident = self._take()
        request = cryptography_pb2.VerifyPinRequest(
            request_id=new_request_id(),
            catalogue_item=CARD_PIN.catalogue_item,
            catalogue_item_version=CARD_PIN.catalogue_item_version,
            pan=resident.chip.pan,
            pin=self._enter_pin(resident.chip.pan),
        )
        try:
            response = self._calls.send(VERIFY_PIN, request)
        finally:
            self._pool.give_back(resident)
        self._answered(OperationKind.VERIFY_PIN, request.request_id, reason=response.reason)
        if response.response_code == APPROVED:
            return ""
        name = cryptography_pb2.PinReason.Name(response.reason).removeprefix("PIN_REASON_")
        return f"{response.response_code} {name}"

    def card_status(self) -> str:
        """An agency asks for the status of a card, by identity number."""
        resident = self._take()
        request = cards_pb2.GetCardStatusRequest(
            catalogue_item=CARD_STATUS.catalogue_item,
            catalogue_item_version=CARD_STATUS.catalogue_item_version,
            card=resident.by_identity_number,
        )
        try:
            response = self._calls.send(GET_CARD_STATUS, request)
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

    def _enter_pin(self, pan: str) -> cryptography_pb2.EncryptedPin:
        return self._pad.enter(self._pins[pan], pan=pan)

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
        response = self._calls.send(VERIFY_IDENTITY, request)
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
            response = self._calls.send(ISSUE_CARD_CODE, request)
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
        self._calls.send(REPORT_LOSS, request)
        self._answered(OperationKind.REPORT_LOSS, request.request_id)

    def _lift_loss(self, resident: Resident) -> None:
        request = cards_pb2.LiftLossRequest(
            request_id=new_request_id(),
            catalogue_item=CARD_LOSS.catalogue_item,
            catalogue_item_version=CARD_LOSS.catalogue_item_version,
            card=resident.by_identity_number,
        )
        self._calls.send(LIFT_LOSS, request)
        self._answered(OperationKind.LIFT_LOSS, request.request_id)

    def _answered(self, kind: OperationKind, request_id: str, *, reason: int = DONE) -> None:
        self._acknowledge(Acknowledgement(kind=kind, request_id=request_id, reason=reason))


# Names are those of the traffic model.
_STEPS: Final[dict[str, Callable[[Desk], str]]] = {
    "authenticate_card": Desk.authenticate_card,
    "issue_card_code": Desk.issue_card_code,
    "verify_code": Desk.verify_code,
    "verify_name_number": Desk.verify_name_number,
    "verify_pin": Desk.verify_pin,
    "inquiry": lambda desk: desk.till.inquire(),
    "card_status": Desk.card_status,
    "financial": lambda desk: desk.till.pay(),
    "reversal": lambda desk: desk.till.reverse(),
    "lifecycle": Desk.change_life,
    "tap": lambda desk: desk.till.tap(),
}
POSSIBLE: Final = frozenset(_STEPS)
