"""HTTP/2 frames as bytes, for a generator that must cost less than the server it measures.

Only what a gRPC client needs is here. Requests are encoded without HPACK's dynamic table and without
Huffman codes, so that the same header block serves every call. The peer is told a table size of 0, so its
trailers are literals as well and ``grpc-status`` is found by its bytes. No clock and no socket is read here.

Source: RFC 9113 (HTTP/2), RFC 7541 (HPACK), gRPC over HTTP/2.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8

SETTINGS_HEADER_TABLE_SIZE: Final = 1
SETTINGS_ENABLE_PUSH: Final = 2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 4
SETTINGS_MAX_FRAME_SIZE: Final = 5

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES: Final = 9
DEFAULT_WINDOW_BYTES: Final = 65_535
DEFAULT_FRAME_BYTES_MAX: Final = 16_384
WINDOW_BYTES_MAX: Final = 2**31 - 1
MESSAGE_HEAD_BYTES: Final = 5

# Length and type share the first four bytes of a frame: one number instead of two fields.
FRAME_HEAD: Final = struct.Struct(">IBI")
STREAM_ID: Final = struct.Struct(">I")
_STATUS_NAME: Final = b"\x0bgrpc-status"
_HUFFMAN: Final = 0x80


class Http2Error(Exception):
    """The peer did something a gRPC server must not do, or something this client cannot read."""


class Frame(NamedTuple):
    """Where one frame lies in a received buffer: payload is ``buffer[start:end]``."""

    type: int
    flags: int
    stream_id: int
    start: int
    end: int


def encode_frame(frame_type: int, *, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Encodes one frame; the payload must be within the peer's frame size."""
    return FRAME_HEAD.pack(len(payload) << 8 | frame_type, flags, stream_id) + payload


def encode_settings(settings: Mapping[int, int]) -> bytes:
    """Encodes a SETTINGS frame, or the empty one when there is nothing to say."""
    payload = b"".join(struct.pack(">HI", name, value) for name, value in settings.items())
    return encode_frame(SETTINGS, flags=0, stream_id=0, payload=payload)


def encode_window_update(*, stream_id: int, increment: int) -> bytes:
    """Encodes a WINDOW_UPDATE; stream 0 is the connection."""
    assert 0 < increment <= WINDOW_BYTES_MAX, "a window grows by 1 to 2^31-1 bytes"
    return encode_frame(WINDOW_UPDATE, flags=0, stream_id=stream_id, payload=STREAM_ID.pack(increment))


def decode_settings(payload: bytes) -> dict[int, int]:
    """Decodes the payload of a SETTINGS frame.

    Raises:
        Http2Error: the length is no multiple of six.
    """
    if len(payload) % 6:
        raise Http2Error("SETTINGS payload is cut")
    return dict(struct.iter_unpack(">HI", payload))


def parse_frames(buffer: bytes) -> tuple[list[Frame], int]:
    """Finds every whole frame of a buffer.

    Returns:
        The frames, and how many bytes they take: the rest is the beginning of a frame still on its way.
    """
    frames = []
    position, size = 0, len(buffer)
    unpack = FRAME_HEAD.unpack_from
    while position + FRAME_HEAD_BYTES <= size:
        length_and_type, flags, stream_id = unpack(buffer, position)
        start = position + FRAME_HEAD_BYTES
        end = start + (length_and_type >> 8)
        if end > size:
            break
        frames.append(Frame(length_and_type & 0xFF, flags, stream_id & WINDOW_BYTES_MAX, start, end))
        position = end
    return frames, position


def opening_bytes() -> bytes:
    """What a client says first: no header table, no push, and windows that never hold the server back."""
    settings = {
        SETTINGS_HEADER_TABLE_SIZE: 0,
        SETTINGS_ENABLE_PUSH: 0,
        SETTINGS_INITIAL_WINDOW_SIZE: WINDOW_BYTES_MAX,
    }
    grown = encode_window_update(stream_id=0, increment=WINDOW_BYTES_MAX - DEFAULT_WINDOW_BYTES)
    return PREFACE + encode_settings(settings) + grown


def encode_integer(value: int, *, prefix_bits: int, pattern: int) -> bytes:
    """Encodes an HPACK integer behind the bits of ``pattern``. Source: RFC 7541, 5.1."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((pattern | value,))
    encoded = bytearray((pattern | limit,))
    value -= limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_literal(name: bytes | int, value: bytes) -> bytes:
    """Encodes a header field without indexing and without Huffman codes. Source: RFC 7541, 6.2.2.

    Args:
        name: the name, or its index in the static table.
        value: the value as it is.
    """
    if isinstance(name, int):
        encoded = encode_integer(name, prefix_bits=4, pattern=0)
    else:
        encoded = b"\x00" + encode_integer(len(name), prefix_bits=7, pattern=0) + name
    return encoded + encode_integer(len(value), prefix_bits=7, pattern=0) + value


def encode_request_block(*, path: str, authority: str) -> bytes:
    """Encodes the header block of a gRPC call: the same bytes for every call of one method."""
    post, https, path_name, authority_name, content_type_name = b"\x83", b"\x87", 4, 1, 31
    return b"".join(
        (
            post,
            https,
            encode_literal(path_name, path.encode("ascii")),
            encode_literal(authority_name, authority.encode("ascii")),
            encode_literal(b"te", b"trailers"),
            encode_literal(content_type_name, b"application/grpc"),
        )
    )


def encode_message(message: bytes) -> bytes:
    """Puts the gRPC length prefix before a message, uncompressed."""
    return b"\x00" + STREAM_ID.pack(len(message)) + message


def find_grpc_status(block: bytes) -> int | None:
    """Finds the gRPC status code in a header block without a table, or None when there is none.

    Raises:
        Http2Error: the value is Huffman-coded or no number: the peer ignored the table size of 0.
    """
    found = block.find(_STATUS_NAME)
    if found < 0:
        return None
    position = found + len(_STATUS_NAME)
    length = block[position]
    digits = block[position + 1 : position + 1 + length]
    if length & _HUFFMAN or not digits.isdigit():
        raise Http2Error("grpc-status is not a literal")
    return int(digits)
