"""Messages encoded ahead, in one file: written before the clock starts, read whole by the generator.

Each record is a gRPC message with its length prefix, so that a record can go out as DATA as it is.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.http2_frames import MESSAGE_HEAD_BYTES, encode_message

_LENGTH: Final = struct.Struct(">I")


def write_payloads(path: Path, messages: Iterable[bytes]) -> int:
    """Writes protobuf messages with their gRPC prefix; returns how many."""
    count = 0
    with path.open("wb") as file:
        for message in messages:
            file.write(encode_message(message))
            count += 1
    return count


class PayloadQueue:
    """Hands out payloads in the order of the file, whichever connection asks: one queue for all.

    One order for all connections keeps each card's transaction counters ascending as they are sent.
    """

    def __init__(self, content: bytes, *, cycles: bool) -> None:
        """Indexes the records.

        Args:
            content: the whole file.
            cycles: begin again when all are handed out; else the queue ends.
        """
        self._content = content
        self._offsets = array("Q", [0])
        self._cycles = cycles
        self._next = 0
        position = 0
        while position < len(content):
            (length,) = _LENGTH.unpack_from(content, position + 1)
            position += MESSAGE_HEAD_BYTES + length
            self._offsets.append(position)
        assert position == len(content), "the payload file is cut"

    def __len__(self) -> int:
        """How many payloads the file holds."""
        return len(self._offsets) - 1

    @property
    def handed_out(self) -> int:
        """How many payloads were taken."""
        return self._next

    def take(self) -> bytes | None:
        """The next payload, or None when all are handed out."""
        index = self._next
        if index >= len(self):
            if not self._cycles or not len(self):
                return None
            index %= len(self)
        self._next += 1
        return self._content[self._offsets[index] : self._offsets[index + 1]]
