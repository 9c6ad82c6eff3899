"""预授权: money held on a card until it is known what is owed, as a hotel or a hospital ward does.

A hold is named by the card and the RRN of its pre-authorization, which is all that a hotel keeps for the days between.
Must never take more than the core approved: ``approved_minor`` of each completion says what was taken.
"""

from onecard.v1 import authorization_pb2 as pb
from onecard.v1 import cryptography_pb2

from clients.chip_card import VirtualChipCard
from clients.money_requests import CardName
from clients.terminal import Terminal


class Holds:
    """The holds of one terminal.

    Args:
        terminal: at the reception.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    async def pre_authorize(
        self,
        card: VirtualChipCard,
        *,
        amount_minor: int,
        pin: cryptography_pb2.EncryptedPin | None = None,
        wallet: int = 0,
    ) -> pb.AuthorizeResponse:
        """预授权: holds money; its ``rrn`` names the hold from here on.

        Raises:
            OneCardCallError: no answer.
            IssuerNotGenuineError: the answer is not the issuer's.
        """
        request = self._terminal.requests.with_chip(
            pb.OPERATION_TYPE_PRE_AUTHORIZATION, card, amount_minor=amount_minor, pin=pin, wallet=wallet
        )
        return await self._terminal.submit_with_chip(card, request)

    async def increment(self, card: CardName, *, rrn: str, amount_minor: int) -> pb.AuthorizeResponse:
        """追加预授权: holds ``amount_minor`` more, in 分; ``held_minor`` tells what is held then.

        Raises:
            OneCardCallError: no answer.
        """
        request = self._terminal.requests.following(
            pb.OPERATION_TYPE_INCREMENT, card, rrn=rrn, amount_minor=amount_minor
        )
        return await self._terminal.submit(request)

    def prepare_completion(
        self,
        card: CardName,
        *,
        rrn: str,
        amount_minor: int,
        more_follow: bool = False,
        is_advice: bool = False,
    ) -> pb.AuthorizeRequest:
        """Builds a completion; nothing is sent.

        Args:
            card: its PAN, or what stood for it.
            rrn: of the pre-authorization.
            amount_minor: what is taken, in 分.
            more_follow: keeps held what is left; otherwise it becomes available again.
            is_advice: the money is owed whatever the hold's state: an online decline becomes a forced posting.
        """
        request = self._terminal.requests.following(
            pb.OPERATION_TYPE_COMPLETION, card, rrn=rrn, amount_minor=amount_minor
        )
        request.more_completions_follow = more_follow
        request.is_advice = is_advice
        return request

    async def complete(
        self,
        card: CardName,
        *,
        rrn: str,
        amount_minor: int,
        more_follow: bool = False,
        is_advice: bool = False,
    ) -> pb.AuthorizeResponse:
        """预授权完成: takes held money; see ``prepare_completion``.

        Raises:
            OneCardCallError: no answer.
        """
        request = self.prepare_completion(
            card, rrn=rrn, amount_minor=amount_minor, more_follow=more_follow, is_advice=is_advice
        )
        return await self._terminal.submit(request)

    async def void(self, card: CardName, *, rrn: str) -> pb.AuthorizeResponse:
        """预授权撤销: releases what is still held; ``approved_minor`` tells how much that was.

        Raises:
            OneCardCallError: no answer.
        """
        return await self._terminal.void(card, rrn=rrn)
