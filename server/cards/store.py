"""Writes new cards; the engine writes what changes about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import asyncpg

from crypto.sealing import BlindIndex, ColumnSealer
from server.cards.directory import NAME_KIND, CredentialKind
from server.cards.rules import CardStatus
from server.database.statements import load

STATEMENTS = load("server.cards")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCard:
    """A holder and a card as they are issued; identifiers in canonical form, ``atr_historical_bytes`` 13 bytes."""

    name: str
    identity_number: str
    issuing_region: str
    card_number: str
    identification_code: str
    atr_historical_bytes: bytes
    pan: str
    psn: str
    expires_on: date
    cipher: int
    ac_key_version: int
    ss_key_version: int
    card_alias: bytes
    transaction_amount_max_minor: int
    day_amount_max_minor: int

    def credential_indexes(self, blind_index: BlindIndex) -> dict[CredentialKind, bytes]:
        """Blind index, 16 bytes, of everything that names the card."""
        return {
            CredentialKind.PAN: blind_index.of(self.pan, kind=CredentialKind.PAN),
            CredentialKind.IDENTIFICATION_CODE: blind_index.of(
                self.identification_code, kind=CredentialKind.IDENTIFICATION_CODE
            ),
            CredentialKind.CARD_NUMBER: blind_index.of(self.card_number, kind=CredentialKind.CARD_NUMBER),
            CredentialKind.IDENTITY_NUMBER: blind_index.of(
                self.identity_number, kind=CredentialKind.IDENTITY_NUMBER
            ),
            CredentialKind.ALIAS: blind_index.of(self.card_alias.hex(), kind=CredentialKind.ALIAS),
        }


@dataclass(frozen=True, slots=True)
class CardIds:
    """The numbers of a new card."""

    card_id: int
    account_id: int
    cardholder_id: int


async def allocate_ids(connection: "asyncpg.Connection[Any]", count: int) -> list[CardIds]:
    """Numbers for ``count`` new cards; those that stay unused are lost."""
    return [CardIds(*row) for row in await connection.fetch(STATEMENTS["allocate_ids"], count)]


async def taken_credentials(connection: "asyncpg.Connection[Any]", indexes: Sequence[bytes]) -> set[bytes]:
    """Which of ``indexes`` already name a card."""
    return {row[0] for row in await connection.fetch(STATEMENTS["taken_credentials"], indexes)}


class RowMaker:
    """Turns new cards into rows: personal data sealed, look-up values blinded."""

    def __init__(self, *, sealer: ColumnSealer, blind_index: BlindIndex) -> None:
        self._sealer = sealer
        self._blind_index = blind_index

    def holder(self, ids: CardIds, card: NewCard) -> tuple[Any, ...]:
        """cardholder_id, name_sealed, identity_number_sealed."""
        return (
            ids.cardholder_id,
            self._sealed(card.name, "cardholders.name", ids.cardholder_id),
            self._sealed(card.identity_number, "cardholders.identity_number", ids.cardholder_id),
        )

    def card(self, ids: CardIds, card: NewCard) -> tuple[Any, ...]:
        """card_id, account_id, then the columns of ``cards`` from issuing_region to identification_code_sealed."""
        return (
            ids.card_id,
            ids.account_id,
            card.issuing_region,
            card.cipher,
            card.ac_key_version,
            card.ss_key_version,
            card.psn,
            card.pan[-4:],
            card.atr_historical_bytes,
            card.card_alias,
            self._blind_index.of(card.name, kind=NAME_KIND),
            card.expires_on,
            self._sealed(card.pan, "cards.pan", ids.card_id),
            self._sealed(card.card_number, "cards.card_number", ids.card_id),
            self._sealed(card.identification_code, "cards.identification_code", ids.card_id),
        )

    def credentials(self, ids: CardIds, card: NewCard) -> list[tuple[bytes, int]]:
        """credential_index, card_id."""
        return [(index, ids.card_id) for index in card.credential_indexes(self._blind_index).values()]

    def _sealed(self, text: str, column: str, row_id: int) -> bytes:
        return self._sealer.seal(text.encode(), column=column, row_id=str(row_id))


async def insert_cards(
    connection: "asyncpg.Connection[Any]",
    cards: Sequence[tuple[CardIds, NewCard]],
    *,
    shard: int,
    row_maker: RowMaker,
) -> None:
    """Writes cards in use, with empty wallets.

    Raises:
        asyncpg.UniqueViolationError: a credential is taken; nothing was written.
    """
    holders = [row_maker.holder(ids, card) for ids, card in cards]
    rows = [
        (
            *row_maker.card(ids, card),
            CardStatus.NORMAL,
            card.transaction_amount_max_minor,
            card.day_amount_max_minor,
        )
        for ids, card in cards
    ]
    credentials = [row for ids, card in cards for row in row_maker.credentials(ids, card)]
    await connection.execute(
        STATEMENTS["insert_cards"],
        shard,
        *zip(*holders, strict=True),
        *zip(*rows, strict=True),
        *zip(*credentials, strict=True),
    )
