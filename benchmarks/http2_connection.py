"""One HTTP/2 connection over TLS that never blocks: bytes out, frames in, windows kept.

It answers SETTINGS and PING, respects the peer's windows and frame size, and hands DATA, HEADERS and resets
to the lane that extends it. It makes no request of its own.
"""

from __future__ import annotations

import ssl
import time
from typing import Final

from benchmarks import http2_frames as h2
from benchmarks.http2_frames import Http2Error

_READ_BYTES: Final = 65_536
# Half of the window is given back at once: two updates per gigabyte instead of one per answer.
_REPLENISH_BYTES: Final = 2**29


def now_us() -> int:
    """Monotonic time in whole microseconds."""
    return time.monotonic_ns() // 1000


class Http2Connection:
    """Transport half of a lane. Single-threaded; the caller polls :attr:`socket`."""

    def __init__(self, socket: ssl.SSLSocket) -> None:
        """Takes a connected socket, whose handshake is done, and queues the opening bytes."""
        socket.setblocking(False)
        self.socket: Final = socket
        self.closed = False
        self.received_us = 0
        self.connection_window = h2.DEFAULT_WINDOW_BYTES
        self.stream_window_initial = h2.DEFAULT_WINDOW_BYTES
        self.frame_bytes_max = h2.DEFAULT_FRAME_BYTES_MAX
        self.streams_max = h2.WINDOW_BYTES_MAX
        self._next_stream_id = 1
        self._unread = b""
        self._unsent = bytearray(h2.opening_bytes())
        self._consumed_bytes = 0

    @property
    def wants_write(self) -> bool:
        """True while queued bytes wait for the socket."""
        return bool(self._unsent)

    def new_stream_id(self) -> int:
        """The next odd stream id."""
        stream_id = self._next_stream_id
        self._next_stream_id += 2
        if stream_id > h2.WINDOW_BYTES_MAX:
            raise Http2Error("stream ids of the connection are used up")
        return stream_id

    def queue(self, *pieces: bytes | memoryview) -> None:
        """Appends bytes to what :meth:`flush` will send."""
        for piece in pieces:
            self._unsent += piece

    def flush(self) -> None:
        """Sends what is queued, as far as the socket takes it."""
        while self._unsent and not self.closed:
            try:
                sent = self.socket.send(self._unsent)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError:
                self._close("connection lost while sending")
                return
            del self._unsent[:sent]

    def receive(self) -> None:
        """Reads and dispatches until the socket is empty; sets :attr:`received_us` before each dispatch."""
        while not self.closed:
            try:
                chunk = self.socket.recv(_READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                chunk = b""
            if not chunk:
                self._close("connection lost")
                return
            self.received_us = now_us()
            buffer = self._unread + chunk if self._unread else chunk
            frames, consumed = h2.parse_frames(buffer)
            self._unread = buffer[consumed:]
            for frame in frames:
                self._dispatch(frame, buffer)

    def close(self) -> None:
        """Closes the socket without ceremony."""
        self.closed = True
        self.socket.close()

    def on_data(self, stream_id: int, payload: bytes) -> None:
        """Called for each DATA frame."""
        raise NotImplementedError

    def on_headers(self, stream_id: int, block: bytes, *, ends_stream: bool) -> None:
        """Called for each HEADERS frame."""
        raise NotImplementedError

    def on_reset(self, stream_id: int) -> None:
        """Called when the peer gives up a stream."""
        raise NotImplementedError

    def on_lost(self, reason: str) -> None:
        """Called once when the connection ends without our doing."""
        raise NotImplementedError

    def on_stream_window(self, stream_id: int, increment: int) -> None:
        """Called when a stream may send more. A lane whose requests always fit has nothing to do."""

    def on_initial_window(self, growth: int) -> None:
        """Called when the window of every open stream changes."""

    def _close(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self.on_lost(reason)

    def _dispatch(self, frame: h2.Frame, buffer: bytes) -> None:
        frame_type, flags, stream_id, start, end = frame
        if frame_type == h2.DATA:
            if flags & h2.PADDED:
                raise Http2Error("padded DATA is not read here")
            self._consume(end - start)
            self.on_data(stream_id, buffer[start:end])
            if flags & h2.END_STREAM:
                raise Http2Error("a gRPC answer ends with trailers")
        elif frame_type == h2.HEADERS:
            if flags & h2.PADDED or not flags & h2.END_HEADERS:
                raise Http2Error("padded or continued HEADERS are not read here")
            self.on_headers(stream_id, buffer[start:end], ends_stream=bool(flags & h2.END_STREAM))
        elif frame_type == h2.WINDOW_UPDATE:
            self._grow_window(stream_id, int.from_bytes(buffer[start:end], "big"))
        elif frame_type == h2.PING:
            if not flags & h2.ACK:
                self.queue(
                    h2.encode_frame(h2.PING, flags=h2.ACK, stream_id=0, payload=buffer[start:end]),
                )
        elif frame_type == h2.SETTINGS:
            if not flags & h2.ACK:
                self._adopt_settings(h2.decode_settings(buffer[start:end]))
        elif frame_type == h2.RST_STREAM:
            self.on_reset(stream_id)
        elif frame_type == h2.GOAWAY:
            self._close(f"GOAWAY {int.from_bytes(buffer[start + 4 : start + 8], 'big')}")

    def _adopt_settings(self, settings: dict[int, int]) -> None:
        window = settings.get(h2.SETTINGS_INITIAL_WINDOW_SIZE, self.stream_window_initial)
        growth = window - self.stream_window_initial
        self.stream_window_initial = window
        self.frame_bytes_max = settings.get(h2.SETTINGS_MAX_FRAME_SIZE, self.frame_bytes_max)
        self.streams_max = settings.get(h2.SETTINGS_MAX_CONCURRENT_STREAMS, self.streams_max)
        self.queue(h2.encode_frame(h2.SETTINGS, flags=h2.ACK, stream_id=0, payload=b""))
        if growth:
            self.on_initial_window(growth)

    def _grow_window(self, stream_id: int, increment: int) -> None:
        if stream_id:
            self.on_stream_window(stream_id, increment)
            return
        self.connection_window += increment

    def _consume(self, size_bytes: int) -> None:
        self._consumed_bytes += size_bytes
        if self._consumed_bytes >= _REPLENISH_BYTES:
            self.queue(h2.encode_window_update(stream_id=0, increment=self._consumed_bytes))
            self._consumed_bytes = 0
