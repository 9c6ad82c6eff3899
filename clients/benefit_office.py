"""An agency that pays benefits: money from its fund to a wallet of the holder's card."""

from onecard.v1 import authorization_pb2 as pb

from clients.money_requests import MoneyRequests
from clients.service_client import OneCardClient

# Wallets as the shipped rules number them.
FINANCIAL_WALLET, MEDICAL_WALLET, BENEFIT_WALLET, STUDENT_WALLET = 1, 2, 3, 4


class BenefitOffice:
    """One paying office.

    Args:
        client: of the agency, which holds the RPC class ``benefit_credit``.
        counter_id: terminal under which its credits run; its trace numbers begin anew with each ``BenefitOffice``.
    """

    def __init__(self, client: OneCardClient, *, counter_id: str = "BENEFITS") -> None:
        self._client = client
        self._requests = MoneyRequests(terminal_id=counter_id)

    def prepare_credit(
        self, pan: str, *, amount_minor: int, wallet: int = BENEFIT_WALLET
    ) -> pb.AuthorizeRequest:
        """Builds a credit; nothing is sent."""
        return self._requests.without_chip(
            pb.OPERATION_TYPE_BENEFIT_CREDIT, pan, amount_minor=amount_minor, wallet=wallet
        )

    async def credit(
        self, pan: str, *, amount_minor: int, wallet: int = BENEFIT_WALLET
    ) -> pb.AuthorizeResponse:
        """待遇发放: pays a benefit, to a lost or expired card too, for the wallet is the holder's.

        Args:
            pan: of the holder's card.
            amount_minor: in 分.
            wallet: 1 to 99.
        Raises:
            OneCardCallError: no answer.
        """
        request = self.prepare_credit(pan, amount_minor=amount_minor, wallet=wallet)
        return await self._client.authorize(request)
