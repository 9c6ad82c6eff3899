"""Several mTLS connections to one address, and calls over them that are retried where the status allows it.

One connection is one worker process of the core, so a client opens several and sends each call over the one with the
fewest calls in flight. Must never send a request again under another request id: the id is the caller's, and a retry
with a new one would move the money twice.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import uuid_utils
from google.protobuf.message import Message

from clients.errors import OneCardCallError, UnavailableError, from_rpc_error
from clients.retry import RetryPolicy
from clients.stream_status import StreamCall, StreamStatus

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

# A connection that just failed has the fewest calls in flight and would draw all of them: it rests this long.
REST_S = 0.2
OPTIONS: list[tuple[str, Any]] = [
    # Otherwise all channels of a process share one connection, and so one worker.
    ("grpc.use_local_subchannel_pool", 1),
    # Servers count pings that come more often than every 5 minutes as abuse. With keepalive on, the timeout also
    # bounds how long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT), which is what finds a dead peer.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Attempts are counted here, by rules that know the request id, and not by gRPC.
    ("grpc.enable_retries", 0),
]


def new_request_id() -> str:
    """A fresh request id. UUIDv7: ids that begin with the time are stored fastest."""
    return str(uuid_utils.uuid7())


@dataclass(frozen=True, kw_only=True)
class ClientCredentials:
    """PEM files of a participant: its certificate, its private key, and the authority of the server.

    Holds paths only, so that no repr or log line can show the key.
    """

    certificate: Path
    key: Path
    authority: Path

    @classmethod
    def of_participant(cls, data_dir: Path, participant_id: str) -> Self:
        """The development certificate that ``onecard participants add`` made in an instance's data directory."""
        folder = data_dir / "tls"
        return cls(
            certificate=folder / "participants" / f"{participant_id}.pem",
            key=folder / "participants" / f"{participant_id}.key",
            authority=folder / "ca.pem",
        )

    def load(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            OSError: one of them cannot be read.
        """
        return grpc.ssl_channel_credentials(
            self.authority.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )


@dataclass(frozen=True, slots=True)
class UnaryRpc(Generic[Request, Response]):
    """A method with one request and one response, as ``/package.Service/Method``."""

    path: str
    request_type: type[Request]
    response_type: type[Response]


@dataclass(slots=True)
class CallCounts:
    """What a channel did so far: attempts above ``calls`` are retries."""

    calls: int = 0
    attempts: int = 0


class _Lane:
    """One connection and the calls on it."""

    __slots__ = ("_unary", "channel", "in_flight", "number", "rests_until_s")

    def __init__(self, number: int, channel: grpc.aio.Channel) -> None:
        self.number = number
        self.channel = channel
        self.in_flight = 0
        self.rests_until_s = 0.0
        self._unary: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def send(self, path: str, request: bytes, *, timeout_s: float) -> bytes:
        """One attempt.

        Raises:
            OneCardCallError: no answer.
        """
        method = self._unary.get(path)
        if method is None:
            # No serializers: bytes go and come as they are, so that a replay can be compared byte for byte.
            method = self._unary[path] = self.channel.unary_unary(path)
        self.in_flight += 1
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self.failed(from_rpc_error(error)) from None
        finally:
            self.in_flight -= 1

    def failed(self, error: OneCardCallError) -> OneCardCallError:
        """Lets the connection rest when it is what failed."""
        if isinstance(error, UnavailableError):
            self.rests_until_s = asyncio.get_running_loop().time() + REST_S
        return error


class OneCardChannel:
    """The connections of one participant to the core; an async context manager.

    Args:
        address: ``host:port``.
        credentials: the participant's certificate.
        channels: connections to open; two per worker of the core spread well.
        deadline_s: of one attempt.
        retry: bounds of the retries of one call.
    """

    def __init__(
        self,
        address: str,
        credentials: ClientCredentials,
        *,
        channels: int = 4,
        deadline_s: float = 5.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        if channels < 1 or deadline_s <= 0:
            raise ValueError("a channel needs at least one connection and some time for a call")
        loaded = credentials.load()
        self.deadline_s = deadline_s
        self.retry = retry or RetryPolicy()
        self.counts = CallCounts()
        self._turn = 0
        self._lanes = [
            _Lane(number, grpc.aio.secure_channel(address, loaded, options=OPTIONS))
            for number in range(channels)
        ]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; calls in flight end with CANCELLED."""
        await asyncio.gather(*(lane.channel.close() for lane in self._lanes))

    async def unary(self, rpc: UnaryRpc[Request, Response], request: Request) -> Response:
        """Calls, and calls again where that is allowed.

        Raises:
            OneCardCallError: refused, or the retries are used up.
        """
        has_request_id = bool(getattr(request, "request_id", ""))
        raw = await self.unary_raw(rpc, request.SerializeToString(), has_request_id=has_request_id)
        return rpc.response_type.FromString(raw)

    async def unary_raw(
        self, rpc: UnaryRpc[Request, Response], request: bytes, *, has_request_id: bool
    ) -> bytes:
        """``unary`` on serialized messages: gives the very bytes of the answer.

        Raises:
            OneCardCallError: refused, or the retries are used up.
        """
        clock = asyncio.get_running_loop().time
        end_s = clock() + self.retry.overall_deadline_s
        self.counts.calls += 1
        attempt, lane = 0, None
        while True:
            attempt += 1
            self.counts.attempts += 1
            lane = self._choose(avoid=lane)
            timeout_s = min(self.deadline_s, max(0.001, end_s - clock()))
            try:
                return await lane.send(rpc.path, request, timeout_s=timeout_s)
            except OneCardCallError as error:
                delay_s = self.retry.delay_s(error, attempt=attempt, has_request_id=has_request_id)
                if delay_s is None or clock() + delay_s >= end_s:
                    raise
            await asyncio.sleep(delay_s)

    @contextlib.asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[StreamCall]:
        """A bidirectional call on serialized messages, without a deadline and without retries; ends with the block.

        Raises:
            OneCardCallError: the stream broke inside the block.
        """
        lane = self._choose(avoid=None)
        lane.in_flight += 1
        call: StreamCall = lane.channel.stream_stream(path)()
        status = StreamStatus(call)
        try:
            yield call
        except grpc.aio.AioRpcError as error:
            raise lane.failed(await status.error_of(error)) from None
        finally:
            lane.in_flight -= 1
            call.cancel()

    @contextlib.asynccontextmanager
    async def server_stream(self, path: str, request: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """The messages that answer one request, without a deadline and without retries; ends with the block.

        Raises:
            OneCardCallError: the stream was refused or broke inside the block.
        """
        lane = self._choose(avoid=None)
        lane.in_flight += 1
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = lane.channel.unary_stream(path)
        call = method(request)
        try:
            yield aiter(call)
        except grpc.aio.AioRpcError as error:
            raise lane.failed(from_rpc_error(error)) from None
        finally:
            lane.in_flight -= 1
            call.cancel()

    def _choose(self, *, avoid: _Lane | None) -> _Lane:
        """The connection with the fewest calls in flight, in turn among equals; not the one that just failed."""
        now_s = asyncio.get_running_loop().time()
        awake = [lane for lane in self._lanes if lane is not avoid and lane.rests_until_s <= now_s]
        self._turn += 1
        count = len(self._lanes)
        return min(
            awake or self._lanes, key=lambda lane: (lane.in_flight, (lane.number - self._turn) % count)
        )
