"""Events, positions, and closed days."""

from collections.abc import AsyncGenerator

from onecard.v1 import settlement_pb2

from clients.events import ServerStreamRpc, answers, subscribe
from clients.services.service import ServiceClient, unary_rpc

GET_SETTLEMENT_POSITION = unary_rpc(
    "SettlementService",
    "GetSettlementPosition",
    settlement_pb2.GetSettlementPositionRequest,
    settlement_pb2.GetSettlementPositionResponse,
)
LIST_CLOSINGS = unary_rpc(
    "SettlementService",
    "ListClosings",
    settlement_pb2.ListClosingsRequest,
    settlement_pb2.ListClosingsResponse,
)
SUBSCRIBE_EVENTS = ServerStreamRpc(
    "/onecard.v1.SettlementService/SubscribeEvents",
    settlement_pb2.SubscribeEventsRequest,
    settlement_pb2.SubscribeEventsResponse,
)
DOWNLOAD_CLOSING = ServerStreamRpc(
    "/onecard.v1.SettlementService/DownloadClosing",
    settlement_pb2.DownloadClosingRequest,
    settlement_pb2.DownloadClosingResponse,
)


class SettlementClient(ServiceClient):
    """Every RPC of ``SettlementService``."""

    def subscribe_events(
        self, request: settlement_pb2.SubscribeEventsRequest
    ) -> AsyncGenerator[settlement_pb2.SubscribeEventsResponse, None]:
        """Events after ``after_sequence``, without an end; goes on by itself after a break, each event once."""
        return subscribe(self.channel, SUBSCRIBE_EVENTS, request)

    async def get_settlement_position(
        self, request: settlement_pb2.GetSettlementPositionRequest
    ) -> settlement_pb2.GetSettlementPositionResponse:
        """Tells what moved on a participant's accounts in a business date."""
        return await self.channel.unary(GET_SETTLEMENT_POSITION, request)

    async def list_closings(
        self, request: settlement_pb2.ListClosingsRequest
    ) -> settlement_pb2.ListClosingsResponse:
        """Lists closed days, the latest first."""
        return await self.channel.unary(LIST_CLOSINGS, request)

    def download_closing(
        self, request: settlement_pb2.DownloadClosingRequest
    ) -> AsyncGenerator[settlement_pb2.DownloadClosingResponse, None]:
        """A file of a closing in pieces; one that breaks off is asked for again from the start."""
        return answers(self.channel, DOWNLOAD_CLOSING, request)
