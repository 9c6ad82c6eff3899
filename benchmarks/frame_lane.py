"""A connection with bidirectional streams that carry frames of operations, several in flight on each.

Frames are larger than the server's first window, so this lane keeps both windows of HTTP/2. Answers are kept
as bytes and decoded after the clock has stopped: the generator shall not take the time it measures.
"""

from __future__ import annotations

import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from benchmarks import http2_frames as h2
from benchmarks.http2_connection import Http2Connection, now_us
from benchmarks.payload_file import PayloadQueue
from benchmarks.tally import Tally


@dataclass
class _Stream:
    """One open stream. ``unsent`` holds the frames that wait for a window, in order."""

    stream_id: int
    window: int
    unsent: deque[memoryview] = field(default_factory=deque)
    sent_us: deque[int] = field(default_factory=deque)
    unread: bytearray = field(default_factory=bytearray)
    ended: bool = False


class FrameLane(Http2Connection):
    """Closed loop of operation frames over the streams of one connection."""

    def __init__(
        self,
        socket: ssl.SSLSocket,
        *,
        request_block: bytes,
        frames: PayloadQueue,
        streams: int,
        in_flight: int,
    ) -> None:
        """Opens the streams; nothing is sent before :meth:`fill`.

        Args:
            socket: connected and shaken hands.
            request_block: HPACK block that opens a stream.
            frames: where the payloads come from; shared with the other lanes.
            streams: streams of this connection.
            in_flight: frames kept open on each stream.
        """
        super().__init__(socket)
        self.tally = Tally()
        self.answers: list[bytes] = []
        self._frames: Final = frames
        self._in_flight: Final = in_flight
        self._streams: dict[int, _Stream] = {}
        for _ in range(streams):
            stream = _Stream(self.new_stream_id(), self.stream_window_initial)
            self._streams[stream.stream_id] = stream
            self.queue(
                h2.encode_frame(
                    h2.HEADERS, flags=h2.END_HEADERS, stream_id=stream.stream_id, payload=request_block
                )
            )

    @property
    def outstanding(self) -> int:
        """Frames without an answer yet."""
        return sum(len(stream.sent_us) for stream in self._streams.values())

    def fill(self) -> None:
        """Takes new frames for every stream with room, and sends what the windows allow."""
        if self.closed:
            return
        for stream in self._streams.values():
            while len(stream.sent_us) < self._in_flight and not stream.ended:
                payload = self._frames.take()
                if payload is None:
                    break
                stream.unsent.append(memoryview(payload))
                # The clock of a frame starts here: waiting for the server's window is part of its latency.
                stream.sent_us.append(now_us())
        self.pump()

    def pump(self) -> None:
        """Sends frames as far as both windows allow, without taking new ones."""
        for stream in self._streams.values():
            while stream.unsent and self._send_piece(stream):
                pass
        self.flush()

    def on_data(self, stream_id: int, payload: bytes) -> None:
        """Collects DATA until a message is whole; answers come in the order of the frames."""
        stream = self._streams[stream_id]
        stream.unread += payload
        while len(stream.unread) >= h2.MESSAGE_HEAD_BYTES:
            (length,) = h2.STREAM_ID.unpack_from(stream.unread, 1)
            end = h2.MESSAGE_HEAD_BYTES + length
            if len(stream.unread) < end:
                return
            self.answers.append(bytes(stream.unread[h2.MESSAGE_HEAD_BYTES : end]))
            del stream.unread[:end]
            self.tally.latencies.record(self.received_us - stream.sent_us.popleft())

    def on_headers(self, stream_id: int, block: bytes, *, ends_stream: bool) -> None:
        """A stream that ends takes its open frames with it."""
        if ends_stream:
            self._end(stream_id, f"status {h2.find_grpc_status(block)}")

    def on_reset(self, stream_id: int) -> None:
        """A stream that was given up takes its open frames with it."""
        self._end(stream_id, "reset")

    def on_lost(self, reason: str) -> None:
        """Counts every open frame as an error."""
        for stream_id in list(self._streams):
            self._end(stream_id, reason)

    def on_stream_window(self, stream_id: int, increment: int) -> None:
        """Lets a stream send more."""
        self._streams[stream_id].window += increment

    def on_initial_window(self, growth: int) -> None:
        """Changes the window of every stream. Source: RFC 9113, 6.9.2."""
        for stream in self._streams.values():
            stream.window += growth

    def _send_piece(self, stream: _Stream) -> bool:
        frame = stream.unsent[0]
        size = min(len(frame), stream.window, self.connection_window, self.frame_bytes_max)
        if size <= 0:
            return False
        stream.window -= size
        self.connection_window -= size
        self.queue(h2.FRAME_HEAD.pack(size << 8 | h2.DATA, 0, stream.stream_id), frame[:size])
        if size == len(frame):
            stream.unsent.popleft()
        else:
            stream.unsent[0] = frame[size:]
        return True

    def _end(self, stream_id: int, reason: str) -> None:
        stream = self._streams[stream_id]
        if not stream.ended:
            stream.ended = True
            self.tally.errors[reason] += max(1, len(stream.sent_us))
            stream.sent_us.clear()
            stream.unsent.clear()
