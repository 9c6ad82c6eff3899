"""An operator's look at a running core over gRPC: is it serving, and what does it serve?

Participants and grants are the command line's (``onecard participants``), which works on the database itself.
"""

import asyncio

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from clients.channel import OneCardChannel, UnaryRpc
from clients.errors import NotFoundError, UnavailableError, call_error

HEALTH_CHECK = UnaryRpc(
    "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
)
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
POLL_S = 0.1


class Operator:
    """One operator; any certificate of the authority may ask these questions."""

    def __init__(self, channel: OneCardChannel) -> None:
        self._channel = channel

    async def is_serving(self, service: str = "") -> bool:
        """Whether the worker that answers serves ``service``, or is well as a whole when it is empty.

        Raises:
            OneCardCallError: no answer.
        """
        try:
            response = await self._channel.unary(HEALTH_CHECK, health_pb2.HealthCheckRequest(service=service))
        except NotFoundError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    async def wait_until_serving(self, *, timeout_s: float) -> None:
        """Waits for the core.

        Raises:
            UnavailableError: it does not serve in time.
        """
        end_s = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < end_s:
            try:
                if await self.is_serving():
                    return
            except UnavailableError:
                pass
            await asyncio.sleep(POLL_S)
        raise call_error(grpc.StatusCode.UNAVAILABLE, message="the core did not serve in time")

    async def services(self) -> tuple[str, ...]:
        """Full names of the services on the port, by reflection.

        Raises:
            OneCardCallError: no answer.
        """
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async with self._channel.stream(REFLECTION) as call:
            await call.write(request.SerializeToString())
            raw = await asyncio.wait_for(call.read(), self._channel.deadline_s)
            await call.done_writing()
        if not isinstance(raw, bytes):
            raise call_error(grpc.StatusCode.UNAVAILABLE, message="reflection gave no answer")
        response = reflection_pb2.ServerReflectionResponse.FromString(raw)
        return tuple(sorted(service.name for service in response.list_services_response.service))
