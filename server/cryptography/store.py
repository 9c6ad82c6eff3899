"""What the PINs of cards are verified against: read and written under the card's lock, sealed on the way out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from crypto.sealing import ColumnSealer
from server.database.statements import load

STATEMENTS = load("server.cryptography")
_COLUMN = "card_pins.reference"


@dataclass(slots=True, repr=False)
class StoredPin:
    """A card's PIN reference and the version of the verification key that made it; a working copy under the lock.

    ``unblocks`` counts unblockings since the PIN was last right.
    """

    pvk_version: int
    reference: str
    unblocks: int = 0
    changed: bool = False

    def __repr__(self) -> str:
        return f"StoredPin(pvk_version={self.pvk_version})"


async def find_pins(
    connection: "asyncpg.Connection[Any]", card_ids: Iterable[int], *, shard: int, sealer: ColumnSealer
) -> dict[int, StoredPin]:
    """The PINs that exist, by card."""
    rows = await connection.fetch(STATEMENTS["find_card_pins"], set(card_ids), shard)
    return {
        card_id: StoredPin(
            version, sealer.open(sealed, column=_COLUMN, row_id=str(card_id)).decode(), unblocks
        )
        for card_id, version, sealed, unblocks in rows
    }


async def put_pins(
    connection: "asyncpg.Connection[Any]",
    pins: Sequence[tuple[int, StoredPin]],
    *,
    shard: int,
    changed_at: datetime,
    sealer: ColumnSealer,
) -> None:
    """Writes what cards' PINs are verified against from now on."""
    rows = [
        (
            card_id,
            pin.pvk_version,
            sealer.seal(pin.reference.encode(), column=_COLUMN, row_id=str(card_id)),
            pin.unblocks,
        )
        for card_id, pin in pins
    ]
    await connection.execute(STATEMENTS["put_card_pins"], shard, changed_at, *zip(*rows, strict=True))
