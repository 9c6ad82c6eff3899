"""What people do with the money of the card: purchases, cash, transfers, fares, inquiries, and tills without an answer.

Must never send a reversal for an operation that was answered with a decline: a till reverses what it does not know.
"""

import random
from collections.abc import Callable
from typing import Final

from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import cryptography_pb2

from clients.demo.residents import Resident
from clients.money_requests import MoneyRequests
from clients.services.authorization import AUTHORIZE
from clients.terminal import APPROVED, verify_answer
from loadtests.card_pool import CardPool
from loadtests.core_calls import Acknowledgement, Calls
from server.engine.operation import OperationKind

# What a financial operation is. Modelled, because not public: most cards pay, pensioners draw cash at counters.
PURCHASE_SHARE: Final = 0.80
CASH_SHARE: Final = 0.12
PURCHASE_MINOR: Final = (100, 5_000)
TAP_MINOR: Final = (100, 400)
TRANSFER_MINOR: Final = (1_000, 50_000)
NOTE_MINOR: Final = 10_000
NOTES_MAX: Final = 10


class Till:
    """The money of one desk, one operation at a time.

    Args:
        calls: the way to the core.
        pool: the cards.
        requests: of the desk's terminal.
        enter_pin: what the desk's PIN pad makes of the holder's PIN, by PAN.
        rng: of kinds and amounts.
        acknowledge: takes what the core has answered.
        now_s: a clock that never goes back, seconds.
    """

    def __init__(
        self,
        calls: Calls,
        pool: CardPool,
        *,
        requests: MoneyRequests,
        enter_pin: Callable[[str], cryptography_pb2.EncryptedPin],
        rng: random.Random,
        acknowledge: Callable[[Acknowledgement], None],
        now_s: Callable[[], float],
    ) -> None:
        self._calls = calls
        self._pool = pool
        self._requests = requests
        self._enter_pin = enter_pin
        self._rng = rng
        self._acknowledge = acknowledge
        self._now_s = now_s
        self._last_purchase: pb.AuthorizeRequest | None = None

    def pay(self) -> str:
        """A purchase, cash or a transfer, each in its share."""
        draw = self._rng.random()
        if draw < PURCHASE_SHARE:
            return self._purchase()
        return self._withdraw() if draw < PURCHASE_SHARE + CASH_SHARE else self._transfer()

    def tap(self) -> str:
        """A fare or an entrance: a small purchase without PIN."""
        return self._with_card(
            lambda resident: self._requests.with_chip(
                pb.OPERATION_TYPE_TAP, resident.chip, amount_minor=self._rng.randint(*TAP_MINOR)
            )
        )

    def inquire(self) -> str:
        """What is on the card?"""
        return self._with_card(
            lambda resident: self._requests.with_chip(
                pb.OPERATION_TYPE_BALANCE_INQUIRY, resident.chip, amount_minor=0
            )
        )

    def reverse(self) -> str:
        """Undoes the purchase before, as if its answer had not come; without one, a purchase that never came."""
        request, self._last_purchase = self._last_purchase, None
        if request is None:
            resident = self._pool.take(now_s=self._now_s())
            request = self._purchase_request(resident)
            self._pool.give_back(resident)
        return self._submit(self._requests.reversal_of(request))

    def _purchase(self) -> str:
        prepared: list[pb.AuthorizeRequest] = []

        def prepare(resident: Resident) -> pb.AuthorizeRequest:
            prepared.append(self._purchase_request(resident))
            return prepared[0]

        decline = self._with_card(prepare)
        if not decline:
            (self._last_purchase,) = prepared
        return decline

    def _purchase_request(self, resident: Resident) -> pb.AuthorizeRequest:
        return self._requests.with_chip(
            pb.OPERATION_TYPE_PURCHASE, resident.chip, amount_minor=self._rng.randint(*PURCHASE_MINOR)
        )

    def _withdraw(self) -> str:
        return self._with_card(
            lambda resident: self._requests.with_chip(
                pb.OPERATION_TYPE_CASH_WITHDRAWAL,
                resident.chip,
                amount_minor=NOTE_MINOR * self._rng.randint(1, NOTES_MAX),
                pin=self._enter_pin(resident.chip.pan),
            )
        )

    def _transfer(self) -> str:
        # Held, so that nobody reports it lost while money is on its way to it.
        receiver = self._pool.take(now_s=self._now_s())

        def prepare(resident: Resident) -> pb.AuthorizeRequest:
            request = self._requests.with_chip(
                pb.OPERATION_TYPE_TRANSFER,
                resident.chip,
                amount_minor=self._rng.randint(*TRANSFER_MINOR),
                pin=self._enter_pin(resident.chip.pan),
            )
            request.to_pan = receiver.chip.pan
            return request

        try:
            return self._with_card(prepare)
        finally:
            self._pool.give_back(receiver)

    def _with_card(self, prepare: Callable[[Resident], pb.AuthorizeRequest]) -> str:
        resident = self._pool.take(now_s=self._now_s())
        try:
            return self._submit(prepare(resident), resident)
        finally:
            self._pool.give_back(resident)

    def _submit(self, request: pb.AuthorizeRequest, resident: Resident | None = None) -> str:
        """Sends it and acknowledges its answer; with a card there, its chip checks who answered."""
        response = self._calls.send(AUTHORIZE, request)
        self._acknowledge(
            Acknowledgement(
                kind=OperationKind[pb.OperationType.Name(request.operation).removeprefix("OPERATION_TYPE_")],
                request_id=request.request_id,
                reason=response.reason,
                amount_minor=request.amount_minor,
            )
        )
        if resident is not None:
            verify_answer(resident.chip, request, response)
        if response.response_code == APPROVED:
            return ""
        name = pb.DecisionReason.Name(response.reason).removeprefix("DECISION_REASON_")
        return f"{response.response_code} {name}"
