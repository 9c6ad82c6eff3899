"""Builds the money operations of one terminal: an id, a trace number and a time for each; nothing is sent.

A request is built once and may be sent many times: the request id makes a retry safe. Must never build a new request
for an operation whose outcome is unknown.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import cryptography_pb2

from clients.channel import new_request_id
from clients.chip_card import VirtualChipCard

STAN_MAX = 999_999
SHANGHAI_OFFSET_S = 8 * 3600
MTI_AUTHORIZATION, MTI_FINANCIAL = 1, 2


@dataclass(frozen=True, slots=True)
class CardCode:
    """The QR code on the holder's phone, 1 to 64 characters, in the place of a PAN."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CardToken:
    """The caller's own name for a card that it registered, in the place of a PAN."""

    text: str = field(repr=False)


# How a request names the card: by its PAN, 16 to 19 digits, or by what stands for it.
CardName: TypeAlias = str | CardCode | CardToken
_HOLDING = frozenset({pb.OPERATION_TYPE_PRE_AUTHORIZATION, pb.OPERATION_TYPE_INCREMENT})


class StanCounter:
    """System trace audit numbers of one terminal: 1 to 999999, then from 1 again."""

    def __init__(self, last: int = 0) -> None:
        self._last = last

    def next(self) -> int:
        """The next number."""
        self._last = self._last % STAN_MAX + 1
        return self._last


class MoneyRequests:
    """The requests of one terminal.

    Args:
        terminal_id: 1 to 16 visible ASCII characters.
        merchant_id: at most 15, may be empty.
        now_s: its clock, unix seconds.
        put_mac: puts the terminal's code on a message, as ``PinPad.put_mac`` does; None where no rule demands one.
    """

    def __init__(
        self,
        *,
        terminal_id: str,
        merchant_id: str = "",
        now_s: Callable[[], float] = time.time,
        put_mac: Callable[[pb.AuthorizeRequest], None] | None = None,
    ) -> None:
        self._terminal_id = terminal_id
        self._merchant_id = merchant_id
        self._now_s = now_s
        self._put_mac = put_mac
        self._stans = StanCounter()

    def coded(self, request: pb.AuthorizeRequest) -> pb.AuthorizeRequest:
        """The request with its code, which is put on when it is first sent: it goes again as it went."""
        if self._put_mac is not None and not request.HasField("mac"):
            self._put_mac(request)
        return request

    def with_chip(
        self,
        operation: "pb.OperationType.ValueType",
        card: VirtualChipCard,
        *,
        amount_minor: int,
        pin: cryptography_pb2.EncryptedPin | None = None,
        wallet: int = 0,
    ) -> pb.AuthorizeRequest:
        """Reads the chip, which counts one transaction and signs the amount.

        Args:
            card: inserted chip.
            amount_minor: in 分; 0 for a balance inquiry.
            pin: as a PIN pad encrypted it for this card.
            wallet: 1 to 99; 0 is the financial account.
        """
        transaction_date = time.strftime("%y%m%d", time.gmtime(self._now_s() + SHANGHAI_OFFSET_S))
        request = self.without_chip(operation, card.pan, amount_minor=amount_minor, wallet=wallet)
        request.chip.CopyFrom(card.sign(amount_minor=amount_minor, transaction_date=transaction_date))
        if pin is not None:
            request.pin.CopyFrom(pin)
        return request

    def without_chip(
        self,
        operation: "pb.OperationType.ValueType",
        card: CardName,
        *,
        amount_minor: int,
        wallet: int = 0,
    ) -> pb.AuthorizeRequest:
        """A credit, an advice, or what follows another operation: the card is not there. Amount in 分."""
        return pb.AuthorizeRequest(
            request_id=new_request_id(),
            operation=operation,
            pan=card if isinstance(card, str) else "",
            card_code=card.text if isinstance(card, CardCode) else "",
            card_token=card.text if isinstance(card, CardToken) else "",
            amount_minor=amount_minor,
            currency_code="CNY",
            terminal_id=self._terminal_id,
            merchant_id=self._merchant_id,
            stan=self._stans.next(),
            terminal_time_unix_ms=int(self._now_s() * 1000),
            wallet=wallet,
        )

    def by_code(
        self,
        operation: "pb.OperationType.ValueType",
        card_code: str,
        *,
        amount_minor: int,
        wallet: int = 0,
    ) -> pb.AuthorizeRequest:
        """By the QR code that the holder's phone shows for payment: it serves once. Amount in 分."""
        return self.without_chip(operation, CardCode(card_code), amount_minor=amount_minor, wallet=wallet)

    def by_token(
        self,
        operation: "pb.OperationType.ValueType",
        card_token: str,
        *,
        amount_minor: int,
        wallet: int = 0,
    ) -> pb.AuthorizeRequest:
        """By a token that the caller registered for a card: nobody is there. Amount in 分."""
        return self.without_chip(operation, CardToken(card_token), amount_minor=amount_minor, wallet=wallet)

    def following(
        self, operation: "pb.OperationType.ValueType", card: CardName, *, rrn: str, amount_minor: int = 0
    ) -> pb.AuthorizeRequest:
        """Follows the operation that was answered with ``rrn``; amount in 分, 0 for a void.

        The card is named as it was then: what was paid by a code is given back by that code, at any time.
        """
        request = self.without_chip(operation, card, amount_minor=amount_minor)
        request.original.rrn = rrn
        return request

    def reversal_of(self, request: pb.AuthorizeRequest, *, amount_minor: int = 0) -> pb.AuthorizeRequest:
        """Undoes a request that got no answer, or part of what it did.

        The original is named by request id, and by terminal, STAN and class of its message too: a late original is
        declined whichever way it comes.

        Args:
            request: the original, as it was sent.
            amount_minor: in 分; 0 is all that is left.
        """
        reversal = self.without_chip(
            pb.OPERATION_TYPE_REVERSAL, _name_in(request), amount_minor=amount_minor, wallet=request.wallet
        )
        reversal.to_pan = request.to_pan
        reversal.original.CopyFrom(
            pb.OriginalReference(
                request_id=request.request_id,
                stan=request.stan,
                terminal_id=request.terminal_id,
                mti_class=MTI_AUTHORIZATION if request.operation in _HOLDING else MTI_FINANCIAL,
            )
        )
        return reversal


def _name_in(request: pb.AuthorizeRequest) -> CardName:
    if request.card_code:
        return CardCode(request.card_code)
    return CardToken(request.card_token) if request.card_token else request.pan
