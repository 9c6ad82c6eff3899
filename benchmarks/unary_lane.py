"""A connection for unary calls: a fixed number in flight, or calls as they fall due."""

from __future__ import annotations

import ssl
from typing import Final

from benchmarks import http2_frames as h2
from benchmarks.http2_connection import Http2Connection, now_us
from benchmarks.payload_file import PayloadQueue
from benchmarks.tally import Tally

# AuthorizeResponse begins with field 1, response_code; "00" is approved. Behind the gRPC prefix of 5 bytes.
APPROVED_PREFIX: Final = b"\x0a\x0200"
_MESSAGE_START: Final = h2.MESSAGE_HEAD_BYTES
_APPROVED_END: Final = _MESSAGE_START + len(APPROVED_PREFIX)


class UnaryLane(Http2Connection):
    """Unary calls over one connection: :meth:`fill` keeps a closed loop, :meth:`call` serves an open one."""

    def __init__(
        self, socket: ssl.SSLSocket, *, request_block: bytes, calls: PayloadQueue, in_flight: int
    ) -> None:
        """Prepares the lane; nothing is sent before :meth:`fill`.

        Args:
            socket: connected and shaken hands.
            request_block: HPACK block of every call.
            calls: where the payloads come from; shared with the other lanes.
            in_flight: calls kept open at once by :meth:`fill`; the most that may be open.
        """
        super().__init__(socket)
        self.tally = Tally()
        self._calls: Final = calls
        self._in_flight: Final = in_flight
        # Everything of a call that does not change: HEADERS up to the stream id, and the block behind it.
        self._head: Final = h2.FRAME_HEAD.pack(len(request_block) << 8 | h2.HEADERS, h2.END_HEADERS, 0)[:5]
        self._block: Final = request_block
        self._started_us: dict[int, int] = {}

    @property
    def outstanding(self) -> int:
        """Calls without an answer yet."""
        return len(self._started_us)

    @property
    def has_room(self) -> bool:
        """True while one more call may be sent."""
        # A whole frame's room is asked for, so that a payload never has to be handed back.
        return (
            len(self._started_us) < min(self._in_flight, self.streams_max)
            and self.connection_window >= h2.DEFAULT_FRAME_BYTES_MAX
            and not self.closed
        )

    def fill(self) -> None:
        """Sends new calls until the lane is full, the window is used or the payloads are."""
        sent_us = now_us()
        while self.has_room:
            payload = self._calls.take()
            if payload is None:
                break
            self.call(payload, started_us=sent_us)
        self.flush()

    def call(self, payload: bytes, *, started_us: int) -> None:
        """Queues one call, for :meth:`flush`.

        Args:
            payload: with its gRPC prefix.
            started_us: when the call's clock started.
        """
        stream_id = self.new_stream_id()
        self._started_us[stream_id] = started_us
        self.connection_window -= len(payload)
        stream = h2.STREAM_ID.pack(stream_id)
        data_head = h2.FRAME_HEAD.pack(len(payload) << 8 | h2.DATA, h2.END_STREAM, stream_id)
        self.queue(b"".join((self._head, stream, self._block, data_head, payload)))

    def on_data(self, stream_id: int, payload: bytes) -> None:
        """Counts an approval."""
        if payload[_MESSAGE_START:_APPROVED_END] == APPROVED_PREFIX:
            self.tally.approved += 1

    def on_headers(self, stream_id: int, block: bytes, *, ends_stream: bool) -> None:
        """Counts the end of a call; the headers before the answer say nothing."""
        if not ends_stream:
            return
        started_us = self._started_us.pop(stream_id)
        status = h2.find_grpc_status(block)
        if status == 0:
            self.tally.answered += 1
            self.tally.latencies.record(self.received_us - started_us)
        else:
            self.tally.errors[f"status {status}"] += 1

    def on_reset(self, stream_id: int) -> None:
        """Counts a call that was given up; a reset after the trailers is only a farewell."""
        if self._started_us.pop(stream_id, None) is not None:
            self.tally.errors["reset"] += 1

    def on_lost(self, reason: str) -> None:
        """Counts every open call as an error."""
        self.tally.errors[reason] += len(self._started_us)
        self._started_us.clear()
