"""The status with which a stream really ended.

When a write fails because the stream is over, grpc.aio puts INTERNAL "Internal error from Core" in the place of the
status that the server sent (grpc issue 36066). A caller must know whether it was refused or the core went away, so the
server's status is kept as it arrives, before it can be overwritten.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeAlias, TypeVar

import grpc

from clients.errors import OneCardCallError, call_error, from_rpc_error

T = TypeVar("T")
StreamCall: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"

OVERWRITTEN_DETAILS = "Internal error from Core"
# The server's status may come after the failed write; it is on its way already, or it never comes.
STATUS_S_MAX = 0.5


class StreamStatus:
    """Watches one call from its start."""

    def __init__(self, call: StreamCall) -> None:
        self._error: OneCardCallError | None = None
        self._told = asyncio.Event()
        call.add_done_callback(self._note)

    def _note(self, call: Any) -> None:
        # Called once for each status, synchronously: no await, or the next one has taken its place.
        error = grpc.aio.AioRpcError(
            _finished(call.code()),
            _finished(call.initial_metadata()),
            _finished(call.trailing_metadata()),
            _finished(call.details()),
        )
        if self._error is None and error.code() is not grpc.StatusCode.OK and not _is_overwritten(error):
            self._error = from_rpc_error(error)
            self._told.set()

    async def error_of(self, error: grpc.aio.AioRpcError) -> OneCardCallError:
        """What ``error``, raised by the call, stands for; a stream that just broke is UNAVAILABLE."""
        if not _is_overwritten(error):
            return from_rpc_error(error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), STATUS_S_MAX)
        return self._error or call_error(grpc.StatusCode.UNAVAILABLE, message="the stream broke")


def _is_overwritten(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == OVERWRITTEN_DETAILS


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for, because the call has its status."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("a call that is over knows its status")
