"""The generator's own HTTP/2: what it writes must be what the standards say."""

import pytest

from benchmarks import http2_frames as h2

PATH = "/onecard.v1.AuthorizationService/Authorize"


def test_frame_round_trip() -> None:
    encoded = h2.encode_frame(h2.DATA, flags=h2.END_STREAM, stream_id=7, payload=b"abc")
    assert encoded == bytes.fromhex("000003 00 01 00000007") + b"abc"
    frames, consumed = h2.parse_frames(encoded)
    assert frames == [h2.Frame(h2.DATA, h2.END_STREAM, 7, 9, 12)]
    assert consumed == 12


@pytest.mark.parametrize("cut", [0, 1, 8, 9, 11])
def test_a_frame_on_its_way_is_left_in_the_buffer(cut: int) -> None:
    whole = h2.encode_frame(h2.PING, flags=0, stream_id=0, payload=bytes(8))
    part = h2.encode_frame(h2.DATA, flags=0, stream_id=1, payload=b"abc")[:cut]
    frames, consumed = h2.parse_frames(whole + part)
    assert [frame.type for frame in frames] == [h2.PING]
    assert consumed == len(whole)


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    encoded = h2.encode_frame(h2.DATA, flags=0, stream_id=0x80000003, payload=b"")
    assert h2.parse_frames(encoded)[0][0].stream_id == 3


def test_opening_bytes_ask_for_no_header_table_and_the_widest_windows() -> None:
    opening = h2.opening_bytes()
    assert opening.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    rest = opening[len(h2.PREFACE) :]
    frames, consumed = h2.parse_frames(rest)
    assert consumed == len(rest)
    settings, window = frames
    decoded = h2.decode_settings(rest[settings.start : settings.end])
    assert decoded[h2.SETTINGS_HEADER_TABLE_SIZE] == 0
    assert decoded[h2.SETTINGS_INITIAL_WINDOW_SIZE] == 2**31 - 1
    assert (window.type, window.stream_id) == (h2.WINDOW_UPDATE, 0)
    assert int.from_bytes(rest[window.start : window.end], "big") + 65_535 == 2**31 - 1


def test_cut_settings_are_refused() -> None:
    with pytest.raises(h2.Http2Error):
        h2.decode_settings(bytes(7))


@pytest.mark.parametrize(
    ("value", "prefix_bits", "expected"), [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a"), (31, 4, "0f10")]
)
def test_integers_of_rfc_7541(value: int, prefix_bits: int, expected: str) -> None:
    """The first three are appendix C.1; the last is the static index of content-type."""
    assert h2.encode_integer(value, prefix_bits=prefix_bits, pattern=0).hex() == expected


def test_literal_with_indexed_name_of_rfc_7541() -> None:
    """Appendix C.2.2: ``:path: /sample/path`` without indexing."""
    assert h2.encode_literal(4, b"/sample/path").hex() == "040c2f73616d706c652f70617468"


def test_request_block_spells_every_header_without_touching_the_table() -> None:
    block = h2.encode_request_block(path=PATH, authority="localhost:1")
    assert _decode_without_table(block) == [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", PATH.encode()),
        (b":authority", b"localhost:1"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]


@pytest.mark.parametrize("status", [0, 3, 14])
def test_grpc_status_is_found_in_literal_trailers(status: int) -> None:
    block = h2.encode_literal(b"grpc-message", b"x") + h2.encode_literal(b"grpc-status", b"%d" % status)
    assert h2.find_grpc_status(block) == status


def test_headers_before_the_answer_carry_no_status() -> None:
    assert h2.find_grpc_status(b"\x88" + h2.encode_literal(31, b"application/grpc")) is None


def test_a_huffman_coded_status_is_refused() -> None:
    with pytest.raises(h2.Http2Error):
        h2.find_grpc_status(b"\x00\x0bgrpc-status\x81\x07")


def test_message_prefix_is_uncompressed_with_its_length() -> None:
    assert h2.encode_message(b"abc") == b"\x00\x00\x00\x00\x03abc"


def _decode_without_table(block: bytes) -> list[tuple[bytes, bytes]]:
    """An independent reader of indexed static fields and literals without indexing (RFC 7541, 6.1, 6.2.2)."""
    static = {3: (b":method", b"POST"), 7: (b":scheme", b"https")}
    names = {1: b":authority", 4: b":path", 31: b"content-type"}
    fields, position = [], 0

    def integer(bits: int) -> int:
        nonlocal position
        limit = (1 << bits) - 1
        value = block[position] & limit
        position += 1
        shift = 0
        while value >= limit and (shift == 0 or block[position - 1] & 0x80):
            value += (block[position] & 0x7F) << shift
            shift += 7
            position += 1
        return value

    def text() -> bytes:
        nonlocal position
        assert not block[position] & 0x80, "Huffman-coded"
        length = integer(7)
        position += length
        return block[position - length : position]

    while position < len(block):
        if block[position] & 0x80:
            fields.append(static[integer(7)])
            continue
        assert not block[position] & 0xF0, "would change the table"
        index = integer(4)
        name = names[index] if index else text()
        fields.append((name, text()))
    return fields
