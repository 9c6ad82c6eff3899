"""Asks what became of an operation: the stored answer, and what was reversed, refunded, held or captured since.

For disputes and for the evening's reconciliation. Must never take the place of a retry: an operation without an answer
is asked again under its own request id.
"""

from onecard.v1 import authorization_pb2 as pb

from clients.money_requests import MTI_FINANCIAL
from clients.service_client import OneCardClient


class LookUp:
    """Look-ups of one participant, in its own operations only.

    Args:
        client: of the participant.
    """

    def __init__(self, client: OneCardClient) -> None:
        self._client = client

    async def by_rrn(self, rrn: str) -> pb.LookUpOperationResponse:
        """The operation that was answered with ``rrn``, twelve digits.

        Raises:
            NotFoundError: ``OPERATION_UNKNOWN``.
            OneCardCallError: no answer.
        """
        return await self._client.look_up_operation(pb.LookUpOperationRequest(rrn=rrn))

    async def by_request_id(self, request_id: str) -> pb.LookUpOperationResponse:
        """The operation that was sent under ``request_id``.

        Raises:
            NotFoundError: ``OPERATION_UNKNOWN``.
            OneCardCallError: no answer.
        """
        return await self._client.look_up_operation(pb.LookUpOperationRequest(request_id=request_id))

    async def by_switch_key(
        self, *, terminal_id: str, stan: int, business_date: str, mti_class: int = MTI_FINANCIAL
    ) -> pb.LookUpOperationResponse:
        """The operation that a switch knows by its trace number.

        Args:
            terminal_id: that sent it.
            stan: 1 to 999999.
            business_date: eight digits, as answered.
            mti_class: 1 for a pre-authorization or increment, 2 financial, 4 for a reversal.
        Raises:
            NotFoundError: ``OPERATION_UNKNOWN``.
            OneCardCallError: no answer.
        """
        key = pb.SwitchKey(
            terminal_id=terminal_id, stan=stan, business_date=business_date, mti_class=mti_class
        )
        return await self._client.look_up_operation(pb.LookUpOperationRequest(switch_key=key))
