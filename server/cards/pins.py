"""What the PINs of cards are verified against: read and written under the card's lock, sealed on the way out.

The working copies stand in the batch, for all capabilities: a PIN that one of them changes is the PIN of the next.
"""

from collections.abc import Iterable
from typing import Any

import asyncpg

from crypto.errors import CryptoError, PinBlockInvalidError
from crypto.key_store.requests import PinReferences
from crypto.sealing import ColumnSealer
from server.cards.pin_rules import StoredPin
from server.database.statements import load
from server.edge.key_errors import RefusedFields, operating_error
from server.engine.operation import Batch

STATEMENTS = load("server.cards")
_COLUMN = "card_pins.reference"

# What the key store said of one PIN: its references, or why there are none.
Referenced = PinReferences | CryptoError | ValueError


def readable(references: Referenced | None, *, field: str) -> PinReferences | None:
    """None for a block that does not decode; ``field`` is the PIN's in the request.

    Raises:
        OneCardError: a key may not do this; nothing was changed.
    """
    if isinstance(references, PinReferences):
        return references
    if isinstance(references, PinBlockInvalidError):
        return None
    assert references is not None, "the key store answered"
    raise operating_error(references, RefusedFields(f"{field}.key", field))


async def read_pins(
    connection: "asyncpg.Connection[Any]", card_ids: Iterable[int], batch: Batch, *, sealer: ColumnSealer
) -> None:
    """Reads the PINs of locked cards into the batch, those that exist and were not read before."""
    by_shard: dict[int, set[int]] = {}
    for card_id in card_ids:
        card = batch.cards.get(card_id)
        if card is not None and card_id not in batch.pins:
            by_shard.setdefault(card.shard, set()).add(card_id)
    for shard, missing in by_shard.items():
        for row in await connection.fetch(STATEMENTS["find_card_pins"], missing, shard):
            card_id, version, sealed, unblocks = row
            reference = sealer.open(sealed, column=_COLUMN, row_id=str(card_id)).decode()
            batch.pins[card_id] = StoredPin(version, reference, unblocks)


async def write_pins(connection: "asyncpg.Connection[Any]", batch: Batch, *, sealer: ColumnSealer) -> None:
    """Writes the PINs that changed, of whichever capability; once for each change."""
    by_shard: dict[int, list[tuple[int, StoredPin]]] = {}
    for card_id, pin in batch.pins.items():
        if pin.changed:
            by_shard.setdefault(batch.cards[card_id].shard, []).append((card_id, pin))
    for shard, changed in sorted(by_shard.items()):
        rows = [
            (
                card_id,
                pin.pvk_version,
                sealer.seal(pin.reference.encode(), column=_COLUMN, row_id=str(card_id)),
                pin.unblocks,
            )
            for card_id, pin in sorted(changed, key=lambda entry: entry[0])
        ]
        await connection.execute(STATEMENTS["put_card_pins"], shard, batch.now, *zip(*rows, strict=True))
        for _, pin in changed:
            pin.changed = False
