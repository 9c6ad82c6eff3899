"""Synchronous calls over one mTLS connection: what a greenlet can wait on once gRPC is told about gevent."""

from typing import Any, Final, cast

import grpc

from clients.channel import OPTIONS, ClientCredentials, Request, Response, UnaryRpc
from clients.errors import from_rpc_error

CONNECT_S_MAX: Final = 10.0
# As a terminal waits; after it the outcome is unknown and counts as a failure.
DEADLINE_S: Final = 10.0


class GrpcCalls:
    """One connection, which is one worker of the core; ``Calls`` for any number of greenlets.

    Args:
        port: of the core on this host.
        credentials: the participant's certificate.
    """

    def __init__(self, port: int, credentials: ClientCredentials) -> None:
        self._channel = grpc.secure_channel(f"localhost:{port}", credentials.load(), options=OPTIONS)
        self._methods: dict[str, Any] = {}

    def connect(self) -> None:
        """Makes the connection before the clock starts.

        Raises:
            grpc.FutureTimeoutError: the core does not answer.
        """
        grpc.channel_ready_future(self._channel).result(timeout=CONNECT_S_MAX)

    def send(self, rpc: UnaryRpc[Request, Response], request: Request) -> Response:
        """See ``loadtests.core_calls.Calls``."""
        method = self._methods.get(rpc.path)
        if method is None:
            method = self._methods[rpc.path] = self._channel.unary_unary(
                rpc.path,
                request_serializer=rpc.request_type.SerializeToString,
                response_deserializer=rpc.response_type.FromString,
            )
        try:
            return cast(Response, method(request, timeout=DEADLINE_S))
        except grpc.RpcError as error:
            # It reads what a synchronous error has as well: code, details, trailing metadata.
            raise from_rpc_error(cast(grpc.aio.AioRpcError, error)) from None

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()
