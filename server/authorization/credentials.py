"""What comes with a money operation beside the chip: an online PIN, a card code, a token of the caller's own, and a
code over the message.

Asked of the key store before the lock, once for a whole batch; read under the lock with one statement each. An
operation that has none of them costs nothing but the look at ``MoneyOperation.credentials``. Must never see a PIN.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from crypto.card_code import CardCode
from crypto.errors import CryptoError, MacInvalidError
from crypto.key_store.data_plane import DataPlane
from crypto.key_store.requests import EncryptedPin, MacCheck, PinReferences
from crypto.sealing import ColumnSealer
from server.cards.card_tokens import read_card_tokens
from server.cards.pins import Referenced, read_pins, readable, write_pins
from server.cards.single_use import TokenVerdict, read_spent_tokens, spend_tokens
from server.edge.key_errors import RefusedFields, operating_error
from server.engine.operation import Batch, Operation
from server.errors import UnavailableError
from server.key_calls import KeyCalls, key_store_unavailable


@dataclass(slots=True)
class PresentedPin:
    """A PIN as it came, and what the key store made of it."""

    pin: EncryptedPin
    answer: Referenced | None = None

    @property
    def references(self) -> PinReferences | None:
        """None for a block that does not decode.

        Raises:
            OneCardError: a key may not do this.
        """
        return readable(self.answer, field="pin")


@dataclass(slots=True)
class PresentedMac:
    """A code over the message, and why it does not fit."""

    check: MacCheck
    failure: CryptoError | ValueError | None = None

    @property
    def key_name(self) -> str:
        return self.check.request.key.name

    @property
    def fits(self) -> bool:
        """
        Raises:
            OneCardError: a key may not do this.
        """
        if self.failure is None or isinstance(self.failure, MacInvalidError):
            return self.failure is None
        raise operating_error(self.failure, RefusedFields("mac.key", "mac", "mac.mac"))


@dataclass(slots=True)
class PresentedCode:
    """A card code as it was scanned.

    ``code`` is None when it does not open; ``card_index``, 16 bytes, is then None too. ``life_s`` is how long it
    serves, with the tolerance between clocks. ``only_names`` tells that it stands for the card in what follows a
    payment, and is not used up. ``verdict`` is that of the present decision.
    """

    code: CardCode | None
    card_index: bytes | None
    digest: bytes
    life_s: int
    only_names: bool
    verdict: TokenVerdict | None = None


@dataclass(slots=True, kw_only=True)
class Credentials:
    """What came with one operation; ``checked`` tells that the key store answered."""

    pin: PresentedPin | None = None
    mac: PresentedMac | None = None
    code: PresentedCode | None = None
    token_index: bytes | None = None
    checked: bool = False

    @property
    def asks_keys(self) -> bool:
        return not self.checked and (self.pin is not None or self.mac is not None)

    @property
    def card_index(self) -> bytes | None:
        """What names the card, where that is no PAN: 16 bytes, or None."""
        return self.code.card_index if self.code is not None else self.token_index

    @property
    def has_genuine_code(self) -> bool:
        """Whether the present decision used up a card code."""
        return self.code is not None and self.code.verdict is TokenVerdict.GENUINE

    def begin(self) -> None:
        """Readies them for a decision; a batch that lost a race is decided again.

        Raises:
            UnavailableError: the key store did not answer, so the operation fails closed.
            OneCardError: a key may not do what was asked of it.
        """
        if self.code is not None:
            self.code.verdict = None
        if self.asks_keys:
            raise key_store_unavailable()
        if self.mac is not None:
            _ = self.mac.fits
        if self.pin is not None:
            _ = self.pin.references


async def check_credentials(keys: KeyCalls, plane: DataPlane, credentials: Sequence[Credentials]) -> None:
    """Asks the key store, in one call for all PINs and one for all codes; fails closed when it does not answer."""
    asked = [each for each in credentials if each.asks_keys]
    if not asked:
        return

    def ask() -> None:
        pins = [each.pin for each in asked if each.pin is not None]
        if pins:
            for pin, answer in zip(pins, plane.pin_references([p.pin for p in pins]), strict=True):
                pin.answer = answer
        macs = [each.mac for each in asked if each.mac is not None]
        if macs:
            for mac, failure in zip(macs, plane.verify_macs([m.check for m in macs]), strict=True):
                mac.failure = failure

    try:
        await keys.ask(ask, first=True)
    except UnavailableError:
        return
    for each in asked:
        each.checked = True


async def read_credentials(
    connection: "asyncpg.Connection[Any]",
    presented: Iterable[tuple[Operation, Credentials]],
    batch: Batch,
    *,
    sealer: ColumnSealer,
) -> None:
    """Reads into the batch what credentials are judged by: PINs, used codes, tokens of cards. After the card locks."""
    with_pin: list[int] = []
    digests: list[bytes] = []
    tokens: list[tuple[bytes, int]] = []
    for operation, each in presented:
        if operation.card_id is None:
            continue
        if each.pin is not None:
            with_pin.append(operation.card_id)
        if each.code is not None and not each.code.only_names:
            digests.append(each.code.digest)
        if each.token_index is not None:
            tokens.append((each.token_index, operation.shard))
    if with_pin:
        await read_pins(connection, with_pin, batch, sealer=sealer)
    if digests:
        await read_spent_tokens(connection, digests, batch)
    if tokens:
        await read_card_tokens(connection, tokens, batch)


async def write_credentials(
    connection: "asyncpg.Connection[Any]",
    decided: Iterable[Credentials],
    batch: Batch,
    *,
    sealer: ColumnSealer,
) -> None:
    """Writes what presenting them changed: unblockings set back, and codes that were used up.

    Raises:
        asyncpg.UniqueViolationError: a code was used meanwhile; the batch is decided again.
    """
    expiries_s: dict[bytes, int] = {}
    for each in decided:
        if each.code is not None and each.code.code is not None and each.has_genuine_code:
            expiries_s[each.code.digest] = each.code.code.issued_at_s + each.code.life_s
    if expiries_s:
        await spend_tokens(connection, expiries_s, batch)
    if batch.pins:
        await write_pins(connection, batch, sealer=sealer)
