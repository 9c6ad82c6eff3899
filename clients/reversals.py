"""冲正: what a terminal does about an operation that got no answer.

It cannot know whether the core decided it, so it undoes it: by a reversal that names the original's request id and
trace number, kept and sent again until the core has answered. The core takes it before its original too. Must never be
forgotten on a restart: a real terminal keeps ``waiting`` where it survives a power cut.
"""

import asyncio
from collections.abc import Iterable

from onecard.v1 import authorization_pb2 as pb

from clients.errors import RetryableError
from clients.money_requests import MoneyRequests
from clients.service_client import OneCardClient


class Reversals:
    """The reversals of one terminal.

    Args:
        client: of the terminal's operator.
        requests: of the terminal: reversals carry trace numbers of its own.
        waiting: what had no answer when the terminal was last switched off.
    """

    def __init__(
        self, client: OneCardClient, requests: MoneyRequests, *, waiting: Iterable[pb.AuthorizeRequest] = ()
    ) -> None:
        self._client = client
        self._requests = requests
        self._waiting = {reversal.request_id: reversal for reversal in waiting}

    @property
    def waiting(self) -> tuple[pb.AuthorizeRequest, ...]:
        """Reversals that have no answer yet, oldest first."""
        return tuple(self._waiting.values())

    async def submit_or_reverse(
        self, request: pb.AuthorizeRequest, *, patience_s: float
    ) -> pb.AuthorizeResponse | None:
        """Asks until the customer's patience ends, then undoes what was asked.

        Reversals that still wait are sent first: until they are through, nobody knows what the card holds.

        Args:
            request: prepared; sent again under its id while ``patience_s`` lasts.
            patience_s: how long the till waits for an answer.
        Returns:
            The answer, or None: there is none, and the operation is undone, or will be by ``send_waiting``.
        Raises:
            RetryableError: an earlier reversal still has no answer; nothing was asked.
            OneCardCallError: the core refused the request; nothing happened.
        """
        await self.send_waiting()
        try:
            async with asyncio.timeout(patience_s):
                return await self._client.authorize(self._requests.coded(request))
        except (TimeoutError, RetryableError):
            await self.reverse(request)
        return None

    async def reverse(self, request: pb.AuthorizeRequest) -> pb.AuthorizeResponse | None:
        """Undoes a request whose outcome is unknown; None while its reversal has no answer.

        Raises:
            OneCardCallError: the core refused the reversal.
        """
        reversal = self._requests.reversal_of(request)
        self._waiting[reversal.request_id] = reversal
        try:
            return await self._send(reversal)
        except RetryableError:
            return None

    async def send_waiting(self) -> None:
        """Sends every reversal that has no answer yet, under its own request id.

        Raises:
            RetryableError: the core does not answer; what is left waits on.
            OneCardCallError: the core refused a reversal.
        """
        for reversal in self.waiting:
            await self._send(reversal)

    async def _send(self, reversal: pb.AuthorizeRequest) -> pb.AuthorizeResponse:
        response = await self._client.authorize(self._requests.coded(reversal))
        # A decline ends it as well: there is nothing left to undo.
        self._waiting.pop(reversal.request_id, None)
        return response
