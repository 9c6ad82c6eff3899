"""Issue of cards, their status, and losses."""

from onecard.v1 import cards_pb2

from clients.services.service import ServiceClient, unary_rpc

ISSUE_CARD = unary_rpc("CardService", "IssueCard", cards_pb2.IssueCardRequest, cards_pb2.IssueCardResponse)
GET_CARD_STATUS = unary_rpc(
    "CardService", "GetCardStatus", cards_pb2.GetCardStatusRequest, cards_pb2.GetCardStatusResponse
)
REPORT_LOSS = unary_rpc(
    "CardService", "ReportLoss", cards_pb2.ReportLossRequest, cards_pb2.ReportLossResponse
)
LIFT_LOSS = unary_rpc("CardService", "LiftLoss", cards_pb2.LiftLossRequest, cards_pb2.LiftLossResponse)


class CardClient(ServiceClient):
    """Every RPC of ``CardService``."""

    async def issue_card(self, request: cards_pb2.IssueCardRequest) -> cards_pb2.IssueCardResponse:
        """Issues a card."""
        return await self.channel.unary(ISSUE_CARD, request)

    async def get_card_status(
        self, request: cards_pb2.GetCardStatusRequest
    ) -> cards_pb2.GetCardStatusResponse:
        """Tells a card's status."""
        return await self.channel.unary(GET_CARD_STATUS, request)

    async def report_loss(self, request: cards_pb2.ReportLossRequest) -> cards_pb2.ReportLossResponse:
        """Reports a loss; in force for the next operation."""
        return await self.channel.unary(REPORT_LOSS, request)

    async def lift_loss(self, request: cards_pb2.LiftLossRequest) -> cards_pb2.LiftLossResponse:
        """Lifts a loss report."""
        return await self.channel.unary(LIFT_LOSS, request)
