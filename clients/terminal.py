"""A payment terminal: reads a chip, asks the core, and lets the chip check who answered.

A request is built once and may be sent many times: ``submit`` on the same request is how a terminal asks again after
a broken line. Must never build a new request for a purchase whose outcome is unknown.
"""

import time
from collections.abc import Callable

from onecard.v1 import authorization_pb2 as pb

from clients.channel import new_request_id
from clients.chip_card import VirtualChipCard
from clients.service_client import AUTHORIZE, OneCardClient

STAN_MAX = 999_999
APPROVED = "00"
SHANGHAI_OFFSET_S = 8 * 3600


class StanCounter:
    """System trace audit numbers of one terminal: 1 to 999999, then from 1 again."""

    def __init__(self, last: int = 0) -> None:
        self._last = last

    def next(self) -> int:
        """The next number."""
        self._last = self._last % STAN_MAX + 1
        return self._last


class Terminal:
    """One terminal of an operator.

    Args:
        client: of the terminal operator.
        terminal_id: 1 to 16 visible ASCII characters.
        merchant_id: at most 15, may be empty.
        now_s: its clock, unix seconds.
    """

    def __init__(
        self,
        client: OneCardClient,
        *,
        terminal_id: str,
        merchant_id: str = "",
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._terminal_id = terminal_id
        self._merchant_id = merchant_id
        self._now_s = now_s
        self._stans = StanCounter()

    def prepare_purchase(self, card: VirtualChipCard, *, amount_minor: int) -> pb.AuthorizeRequest:
        """Reads the chip and builds the request; nothing is sent.

        Args:
            card: inserted chip.
            amount_minor: 1 to 999999999999, in 分.
        """
        now_s = self._now_s()
        transaction_date = time.strftime("%y%m%d", time.gmtime(now_s + SHANGHAI_OFFSET_S))
        return pb.AuthorizeRequest(
            request_id=new_request_id(),
            operation=pb.OPERATION_TYPE_PURCHASE,
            pan=card.pan,
            amount_minor=amount_minor,
            currency_code="CNY",
            terminal_id=self._terminal_id,
            merchant_id=self._merchant_id,
            stan=self._stans.next(),
            terminal_time_unix_ms=int(now_s * 1000),
            chip=card.sign(amount_minor=amount_minor, transaction_date=transaction_date),
        )

    async def submit(self, request: pb.AuthorizeRequest) -> pb.AuthorizeResponse:
        """Sends a prepared request, or sends it again: the outcome is the same.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.authorize(request)

    async def submit_raw(self, request: pb.AuthorizeRequest) -> bytes:
        """``submit``, giving the bytes of the answer as they came.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._client.channel.unary_raw(
            AUTHORIZE, request.SerializeToString(), has_request_id=True
        )

    async def purchase(self, card: VirtualChipCard, *, amount_minor: int) -> pb.AuthorizeResponse:
        """A purchase with the chip's check of the issuer.

        Raises:
            OneCardCallError: no answer.
            IssuerNotGenuineError: the answer is not the issuer's; the goods stay on the counter.
        """
        request = self.prepare_purchase(card, amount_minor=amount_minor)
        response = await self.submit(request)
        verify_answer(card, request, response)
        return response


def verify_answer(
    card: VirtualChipCard, request: pb.AuthorizeRequest, response: pb.AuthorizeResponse
) -> None:
    """Lets the chip check the answer to its cryptogram. Only a decline may come without an ARPC.

    Raises:
        IssuerNotGenuineError: it is not the issuer's.
    """
    if response.arpc or response.response_code == APPROVED:
        card.verify_issuer(request.chip, response_code=response.response_code, arpc=response.arpc)
