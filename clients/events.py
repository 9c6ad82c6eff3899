"""Streams that answer one request; among them the subscription to events, which goes on by itself after a break.

A subscription is asked for again after the last number it was told, so nothing is skipped and nothing comes twice,
whatever happened to the worker in between. Must never go on after a refusal: only what may be retried is.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc
from google.protobuf.message import Message
from onecard.v1 import settlement_pb2

from clients.channel import OneCardChannel
from clients.errors import OneCardCallError, call_error
from clients.retry import is_retryable

# The core sends something every 5 seconds; after so long a silence the connection is dead.
SILENCE_S = 20.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 2.0
# So long without any message, over all attempts, is told to the caller.
PATIENCE_S = 300.0
# How a stream ends whose connection was cut: by a core that was killed, or by one that closed it for its age.
_CUT = {grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class ServerStreamRpc(Generic[Request, Response]):
    """Path and message types of an RPC that answers one request with many messages."""

    path: str
    request_type: type[Request]
    response_type: type[Response]


async def answers(
    channel: OneCardChannel, rpc: ServerStreamRpc[Request, Response], request: Request
) -> AsyncGenerator[Response, None]:
    """The messages of one call, in order.

    Raises:
        OneCardCallError: it was refused, broke off, or was silent for ``SILENCE_S``.
    """
    async with channel.server_stream(rpc.path, request.SerializeToString()) as messages:
        while (message := await _next(messages)) is not None:
            yield rpc.response_type.FromString(message)


async def subscribe(
    channel: OneCardChannel,
    rpc: ServerStreamRpc[settlement_pb2.SubscribeEventsRequest, settlement_pb2.SubscribeEventsResponse],
    request: settlement_pb2.SubscribeEventsRequest,
    *,
    patience_s: float = PATIENCE_S,
) -> AsyncGenerator[settlement_pb2.SubscribeEventsResponse, None]:
    """Messages without an end, each event once; ``through_sequence`` of the last is where another run may go on.

    Raises:
        OneCardCallError: refused, or nothing came for ``patience_s``.
    """
    clock = asyncio.get_running_loop().time
    place = settlement_pb2.SubscribeEventsRequest()
    place.CopyFrom(request)
    pause_s, told_at_s = PAUSE_MIN_S, clock()
    while True:
        try:
            async with contextlib.aclosing(answers(channel, rpc, place)) as messages:
                async for message in messages:
                    place.after_sequence = message.through_sequence
                    pause_s, told_at_s = PAUSE_MIN_S, clock()
                    yield message
        except OneCardCallError as error:
            if not (is_retryable(error, has_request_id=True) or _was_cut(error)):
                raise
            if clock() - told_at_s > patience_s:
                raise
            pause_s = max(pause_s, min(error.retry_delay_s or 0.0, PAUSE_MAX_S))
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(PAUSE_MAX_S, pause_s * 2)


def _was_cut(error: OneCardCallError) -> bool:
    # What the core refuses with has a reason of its own.
    return error.code in _CUT and not error.reason


async def _next(messages: AsyncIterator[bytes]) -> bytes | None:
    """The next message; None at the end."""
    try:
        async with asyncio.timeout(SILENCE_S):
            return await anext(messages, None)
    except TimeoutError:
        raise call_error(grpc.StatusCode.UNAVAILABLE, message="the stream went silent") from None
