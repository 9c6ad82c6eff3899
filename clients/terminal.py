"""A payment terminal: reads a chip, asks the core, and lets the chip check who answered.

A request is built once and may be sent many times: ``submit`` on the same request is how a terminal asks again after
a broken line. One whose outcome stays unknown is undone by ``clients.reversals``; must never be built anew.
"""

import time
from collections.abc import Callable

from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import cryptography_pb2

from clients.chip_card import VirtualChipCard
from clients.money_requests import CardName, MoneyRequests
from clients.service_client import OneCardClient
from clients.services.authorization import AUTHORIZE

APPROVED, PARTIALLY_APPROVED = "00", "10"


class Terminal:
    """One terminal of an operator; ``requests`` builds what it sends.

    Args:
        client: of the terminal operator.
        terminal_id: 1 to 16 visible ASCII characters.
        merchant_id: at most 15, may be empty.
        now_s: its clock, unix seconds.
        put_mac: puts its code on a message, where a rule demands one; see ``MoneyRequests``.
    """

    def __init__(
        self,
        client: OneCardClient,
        *,
        terminal_id: str,
        merchant_id: str = "",
        now_s: Callable[[], float] = time.time,
        put_mac: Callable[[pb.AuthorizeRequest], None] | None = None,
    ) -> None:
        self._client = client
        self.requests = MoneyRequests(
            terminal_id=terminal_id, merchant_id=merchant_id, now_s=now_s, put_mac=put_mac
        )

    async def submit(self, request: pb.AuthorizeRequest) -> pb.AuthorizeResponse:
        """Sends a prepared request, or sends it again: the outcome is the same.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.authorize(self.requests.coded(request))

    async def submit_raw(self, request: pb.AuthorizeRequest) -> bytes:
        """``submit``, giving the bytes of the answer as they came.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.channel.unary_raw(
            AUTHORIZE, self.requests.coded(request).SerializeToString(), has_request_id=True
        )

    async def submit_with_chip(
        self, card: VirtualChipCard, request: pb.AuthorizeRequest
    ) -> pb.AuthorizeResponse:
        """``submit`` of what the inserted chip signed, with the chip's check of the issuer.

        Raises:
            OneCardCallError: no answer.
            IssuerNotGenuineError: the answer is not the issuer's; the goods stay on the counter.
        """
        response = await self.submit(request)
        verify_answer(card, request, response)
        return response

    def prepare_purchase(
        self,
        card: VirtualChipCard,
        *,
        amount_minor: int,
        wallet: int = 0,
        partial_approval_allowed: bool = False,
        pin: cryptography_pb2.EncryptedPin | None = None,
    ) -> pb.AuthorizeRequest:
        """Reads the chip and builds the request; nothing is sent.

        Args:
            card: inserted chip.
            amount_minor: 1 to 999999999999, in 分.
            wallet: that pays, 1 to 99; 0 is the financial account.
            partial_approval_allowed: the till can take less, as a petrol pump can; see ``approved_minor``.
            pin: where the amount or the channel asks for one.
        """
        request = self.requests.with_chip(
            pb.OPERATION_TYPE_PURCHASE, card, amount_minor=amount_minor, pin=pin, wallet=wallet
        )
        request.partial_approval_allowed = partial_approval_allowed
        return request

    async def purchase(
        self,
        card: VirtualChipCard,
        *,
        amount_minor: int,
        wallet: int = 0,
        partial_approval_allowed: bool = False,
        pin: cryptography_pb2.EncryptedPin | None = None,
    ) -> pb.AuthorizeResponse:
        """消费: a purchase; see ``prepare_purchase``.

        Raises:
            OneCardCallError: no answer.
            IssuerNotGenuineError: the answer is not the issuer's.
        """
        request = self.prepare_purchase(
            card,
            amount_minor=amount_minor,
            wallet=wallet,
            partial_approval_allowed=partial_approval_allowed,
            pin=pin,
        )
        return await self.submit_with_chip(card, request)

    async def withdraw_cash(
        self,
        card: VirtualChipCard,
        *,
        amount_minor: int,
        pin: cryptography_pb2.EncryptedPin | None,
        wallet: int = 0,
    ) -> pb.AuthorizeResponse:
        """取现: cash at a machine or counter; without a PIN it is declined.

        Raises:
            OneCardCallError: no answer.
            IssuerNotGenuineError: the answer is not the issuer's.
        """
        request = self.requests.with_chip(
            pb.OPERATION_TYPE_CASH_WITHDRAWAL, card, amount_minor=amount_minor, pin=pin, wallet=wallet
        )
        return await self.submit_with_chip(card, request)

    def prepare_transfer(
        self,
        card: VirtualChipCard,
        *,
        to_pan: str,
        amount_minor: int,
        pin: cryptography_pb2.EncryptedPin | None,
    ) -> pb.AuthorizeRequest:
        """Builds a transfer to the card ``to_pan``; nothing is sent."""
        request = self.requests.with_chip(
            pb.OPERATION_TYPE_TRANSFER, card, amount_minor=amount_minor, pin=pin
        )
        request.to_pan = to_pan
        return request

    async def transfer(
        self,
        card: VirtualChipCard,
        *,
        to_pan: str,
        amount_minor: int,
        pin: cryptography_pb2.EncryptedPin | None,
    ) -> pb.AuthorizeResponse:
        """转账: money to another card, decided on both at once; without a PIN it is declined.

        Raises:
            OneCardCallError: no answer.
            IssuerNotGenuineError: the answer is not the issuer's.
        """
        request = self.prepare_transfer(card, to_pan=to_pan, amount_minor=amount_minor, pin=pin)
        return await self.submit_with_chip(card, request)

    async def tap(self, card: VirtualChipCard, *, amount_minor: int, wallet: int = 0) -> pb.AuthorizeResponse:
        """小额免密: a small purchase without PIN, as at the gate of a bus.

        Raises:
            OneCardCallError: no answer.
            IssuerNotGenuineError: the answer is not the issuer's.
        """
        request = self.requests.with_chip(
            pb.OPERATION_TYPE_TAP, card, amount_minor=amount_minor, wallet=wallet
        )
        return await self.submit_with_chip(card, request)

    async def inquire_balance(
        self,
        card: VirtualChipCard,
        *,
        wallet: int = 0,
        pin: cryptography_pb2.EncryptedPin | None = None,
    ) -> pb.AuthorizeResponse:
        """余额查询: tells ``available_minor`` of a wallet and moves nothing.

        Raises:
            OneCardCallError: no answer.
            IssuerNotGenuineError: the answer is not the issuer's.
        """
        request = self.requests.with_chip(
            pb.OPERATION_TYPE_BALANCE_INQUIRY, card, amount_minor=0, pin=pin, wallet=wallet
        )
        return await self.submit_with_chip(card, request)

    async def pay_by_code(
        self, card_code: str, *, amount_minor: int, wallet: int = 0, partial_approval_allowed: bool = False
    ) -> pb.AuthorizeResponse:
        """扫码支付: a purchase by the code on the holder's phone; a decline may have used it up.

        Raises:
            OneCardCallError: no answer.
        """
        request = self.requests.by_code(
            pb.OPERATION_TYPE_PURCHASE, card_code, amount_minor=amount_minor, wallet=wallet
        )
        request.partial_approval_allowed = partial_approval_allowed
        return await self.submit(request)

    async def charge_token(
        self, card_token: str, *, amount_minor: int, wallet: int = 0
    ) -> pb.AuthorizeResponse:
        """代扣: a purchase on a card that the operator has on file; see ``Bank.register_card_token``.

        Raises:
            OneCardCallError: no answer.
        """
        return await self.submit(
            self.requests.by_token(
                pb.OPERATION_TYPE_PURCHASE, card_token, amount_minor=amount_minor, wallet=wallet
            )
        )

    def prepare_advice(
        self,
        pan: str,
        *,
        amount_minor: int,
        operation: "pb.OperationType.ValueType" = pb.OPERATION_TYPE_PURCHASE,
        wallet: int = 0,
    ) -> pb.AuthorizeRequest:
        """Builds the advice of what was paid offline, a purchase or a tap, for the store of a terminal without a line.

        It is posted even where the decision would have been a decline, and sent until there is an answer.
        """
        request = self.requests.without_chip(operation, pan, amount_minor=amount_minor, wallet=wallet)
        request.is_advice = True
        return request

    async def void(self, card: CardName, *, rrn: str) -> pb.AuthorizeResponse:
        """撤销: undoes a purchase, a withdrawal or a completion whole, within its business date.

        Args:
            card: as it was named then.
            rrn: of what is undone.
        Raises:
            OneCardCallError: no answer.
        """
        return await self.submit(self.requests.following(pb.OPERATION_TYPE_VOID, card, rrn=rrn))

    async def refund(self, card: CardName, *, rrn: str, amount_minor: int) -> pb.AuthorizeResponse:
        """退货: gives back a purchase or completion, or part of it, on whatever day; never more than it took.

        Args:
            card: as it was named then.
            rrn: of the purchase.
            amount_minor: in 分.
        Raises:
            OneCardCallError: no answer.
        """
        request = self.requests.following(pb.OPERATION_TYPE_REFUND, card, rrn=rrn, amount_minor=amount_minor)
        return await self.submit(request)


def verify_answer(
    card: VirtualChipCard, request: pb.AuthorizeRequest, response: pb.AuthorizeResponse
) -> None:
    """Lets the chip check the answer to its cryptogram. Only a decline may come without an ARPC.

    Raises:
        IssuerNotGenuineError: it is not the issuer's.
    """
    if response.arpc or response.response_code in {APPROVED, PARTIALLY_APPROVED}:
        card.verify_issuer(request.chip, response_code=response.response_code, arpc=response.arpc)
