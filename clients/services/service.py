"""What the client of every service is made of."""

from typing import TypeVar

from google.protobuf.message import Message

from clients.channel import OneCardChannel, UnaryRpc

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class ServiceClient:
    """The RPCs of one service over a channel. Each method raises ``OneCardCallError`` when there is no answer."""

    def __init__(self, channel: OneCardChannel) -> None:
        self.channel = channel


def unary_rpc(
    service: str, method: str, request: type[Request], response: type[Response]
) -> UnaryRpc[Request, Response]:
    """The RPC that answers one ``request`` with one ``response``."""
    return UnaryRpc(f"/onecard.v1.{service}/{method}", request, response)
