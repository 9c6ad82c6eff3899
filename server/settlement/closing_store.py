"""Where the files of a closing lie, and how they are read.

Must never send a file that is not the one that was closed.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import date
from enum import StrEnum
from pathlib import Path

from server.errors import UnavailableError

PIECE_BYTES = 64 << 10


class ClosingFile(StrEnum):
    """The files of a closing, by name."""

    CSV = "operations.csv"
    PARQUET = "operations.parquet"
    EXCEPTIONS = "exceptions.csv"
    MANIFEST = "manifest.json"


def closing_folder(settlement_dir: Path, participant_id: str, business_date: date) -> Path:
    """``YYYYMMDD/<participant>`` below the directory of settlement."""
    return settlement_dir / f"{business_date:%Y%m%d}" / participant_id


async def read_closing_file(
    settlement_dir: Path, participant_id: str, business_date: date, *, file: ClosingFile, manifest: str
) -> AsyncIterator[bytes]:
    """A file in pieces of at most ``PIECE_BYTES``.

    Args:
        manifest: as it was recorded.
    Raises:
        UnavailableError: the file is not on this host, or is another than the recorded one.
    """
    if file is ClosingFile.MANIFEST:
        yield manifest.encode()
        return
    path = closing_folder(settlement_dir, participant_id, business_date) / file
    recorded = json.loads(manifest)["files"][file]["sha256"]
    if await asyncio.to_thread(digest_of, path) != recorded:
        raise UnavailableError("CLOSING_ELSEWHERE", "this host does not have the file", retry_delay_ms=1_000)
    with path.open("rb") as content:
        while piece := await asyncio.to_thread(content.read, PIECE_BYTES):
            yield piece


def digest_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; empty when there is none."""
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return ""
