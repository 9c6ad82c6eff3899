"""Frames of operations over one stream, several on their way at once, resent when the stream breaks.

A frame that was sent has an unknown outcome until it is answered, so after a break every unanswered frame goes out
again, unchanged and in order: its request ids make the core answer what it decided before. Must never skip a frame
and never answer one twice.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc
from onecard.v1 import authorization_pb2, cryptography_pb2

from clients.channel import OneCardChannel
from clients.errors import OneCardCallError, call_error
from clients.stream_status import StreamCall

# The core works on so many frames of one stream at once; more would wait in its socket.
FRAMES_IN_FLIGHT_MAX = 8


Request = TypeVar(
    "Request", authorization_pb2.AuthorizeStreamRequest, cryptography_pb2.CryptographyStreamRequest
)
Response = TypeVar(
    "Response", authorization_pb2.AuthorizeStreamResponse, cryptography_pb2.CryptographyStreamResponse
)


@dataclass(frozen=True, slots=True)
class StreamRpc(Generic[Request, Response]):
    """Path and message types of a streaming RPC of frames."""

    path: str
    request_type: type[Request]
    response_type: type[Response]


class FramePipeline(Generic[Request, Response]):
    """Sends frames and yields their answers in the same order. For one run."""

    def __init__(
        self,
        channel: OneCardChannel,
        rpc: StreamRpc[Request, Response],
        *,
        in_flight_max: int = FRAMES_IN_FLIGHT_MAX,
    ) -> None:
        if in_flight_max < 1:
            raise ValueError("at least one frame is on its way")
        self._channel = channel
        self._rpc: StreamRpc[Request, Response] = rpc
        self._unanswered: deque[Request] = deque()
        self._places = asyncio.Semaphore(in_flight_max)
        self._source: asyncio.Queue[Request | Exception | None] = asyncio.Queue(1)
        self._source_failure: Exception | None = None
        self._exhausted = False

    async def run(self, frames: AsyncIterable[Request]) -> AsyncGenerator[Response, None]:
        """Yields one answer per frame.

        Raises:
            OneCardCallError: refused, or the retries are used up; the frames without an answer were not answered.
        """
        policy = self._channel.retry
        clock = asyncio.get_running_loop().time
        # The source is read by a task of its own: a broken stream must not cancel it in the middle of a step.
        pump = asyncio.create_task(self._pump(frames))
        failures, progress_s = 0, clock()
        try:
            while not self._exhausted or self._unanswered:
                try:
                    async with contextlib.aclosing(self._one_stream()) as answers:
                        async for answer in answers:
                            failures, progress_s = 0, clock()
                            yield answer
                except OneCardCallError as error:
                    failures += 1
                    delay_s = policy.delay_s(error, attempt=failures, has_request_id=True)
                    if delay_s is None or clock() + delay_s > progress_s + policy.overall_deadline_s:
                        raise
                    await asyncio.sleep(delay_s)
            if self._source_failure is not None:
                raise self._source_failure
        finally:
            pump.cancel()

    async def _pump(self, frames: AsyncIterable[Request]) -> None:
        try:
            async for frame in frames:
                await self._source.put(frame)
        except Exception as error:  # told to the caller, who waits for answers and not for this task
            await self._source.put(error)
        else:
            await self._source.put(None)

    async def _one_stream(self) -> AsyncGenerator[Response, None]:
        """Opens a stream, sends again what has no answer, then goes on with the source until it ends."""
        async with self._channel.stream(self._rpc.path) as call:
            sent: asyncio.Queue[bool] = asyncio.Queue()
            writer = asyncio.create_task(self._write(call, sent))
            try:
                while await sent.get():
                    yield await self._read(call)
                if self._unanswered:
                    # The writer failed; the read tells why.
                    await self._read(call)
                # Everything is answered: a call that ends by itself is not counted as cancelled.
                with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
                    await asyncio.wait_for(call.read(), self._channel.deadline_s)
            finally:
                writer.cancel()

    async def _write(self, call: StreamCall, sent: asyncio.Queue[bool]) -> None:
        """Writes frames; puts True into ``sent`` for each that is to be answered, and False at the end."""
        try:
            for frame in list(self._unanswered):
                await call.write(frame.SerializeToString())
                sent.put_nowait(True)
            while not self._exhausted:
                await self._places.acquire()
                taken = await self._take()
                if taken is None:
                    self._places.release()
                    break
                self._unanswered.append(taken)
                await call.write(taken.SerializeToString())
                sent.put_nowait(True)
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream is over; the reader has its status
        finally:
            sent.put_nowait(False)

    async def _take(self) -> Request | None:
        try:
            taken = await self._source.get()
        except asyncio.CancelledError:
            self._places.release()
            raise
        if isinstance(taken, self._rpc.request_type):
            return taken
        self._exhausted, self._source_failure = True, taken
        return None

    async def _read(self, call: StreamCall) -> Response:
        try:
            raw = await asyncio.wait_for(call.read(), self._channel.deadline_s)
        except TimeoutError:
            raise call_error(
                grpc.StatusCode.DEADLINE_EXCEEDED, message="a frame was not answered in time"
            ) from None
        if not isinstance(raw, bytes):
            raise call_error(
                grpc.StatusCode.UNAVAILABLE, message="the stream ended before every frame was answered"
            )
        answer = self._rpc.response_type.FromString(raw)
        frame = self._unanswered.popleft()
        assert answer.frame_id == frame.frame_id, "answers keep the order of the frames"
        self._places.release()
        return answer
