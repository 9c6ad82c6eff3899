"""What travels through a batch: operations in, outcomes out, locked rows between.

The rows are working copies: rules change them in memory, so that several operations on one card in one batch
see each other, and the engine writes back what changed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum
from typing import Any

import asyncpg

from server.errors import OneCardError


class OperationKind(IntEnum):
    """What a row of ``operations`` or ``access_log`` decided; numbers are stored and never reused."""

    PURCHASE = 1
    DEPOSIT = 2
    # A balance carried over from an earlier system, written when a card base is loaded.
    OPENING_BALANCE = 3
    AUTHENTICATE_CARD = 20
    VERIFY_IDENTITY = 30
    ISSUE_CARD_CODE = 31
    ISSUE_CARD = 40
    GET_CARD_STATUS = 41
    REPORT_LOSS = 42
    LIFT_LOSS = 43
    VERIFY_PIN = 50
    CHANGE_PIN = 51
    UNBLOCK_PIN = 52
    ISSUE_PIN = 53


@dataclass(slots=True)
class CardState:
    """Working copy of a ``card_states`` row, under its lock."""

    card_id: int
    status: int
    atc_highest: int
    atc_window: int
    transaction_amount_max_minor: int
    day_amount_max_minor: int
    day: date
    day_amount_minor: int
    # Wrong PINs in a row.
    pin_tries: int
    # Where the row is, as PostgreSQL writes it: ``ctid``, 6 bytes.
    place: bytes = b""
    changed: bool = False


@dataclass(slots=True)
class Account:
    """Working copy of an ``accounts`` row, under the lock of its card."""

    account_id: int
    posted_minor: int
    held_minor: int
    # As of ``CardState``.
    place: bytes = b""
    changed: bool = False

    @property
    def available_minor(self) -> int:
        return self.posted_minor - self.held_minor


@dataclass(slots=True)
class Posting:
    """One movement of money: ``amount_minor`` (positive) from the debited to the credited account."""

    debit_account_id: int
    credit_account_id: int
    amount_minor: int


@dataclass(slots=True)
class MoneyFields:
    """The money columns of an operation row; the switch key is terminal, STAN, participant and MTI class."""

    amount_minor: int
    stan: int
    mti_class: int
    merchant_id: str
    terminal_time_unix_ms: int


@dataclass(slots=True)
class Outcome:
    """What deciding one operation came to.

    ``message`` goes to the caller. Its serialised form is stored under the request id; ``stored`` instead, where
    some of it is sealed, and ``Capability.replay`` undoes it. ``response_code`` is the DE 39, where there is one.
    """

    message: Any
    reason: int
    response_code: str | None = None
    postings: Sequence[Posting] = ()
    stored: bytes | None = None


class Ticket:
    """Collects the results of operations that were submitted together; done when the last one is settled.

    A result is a response message or a ``OneCardError``. Settling twice is a programmer error.
    """

    __slots__ = ("_remaining", "done", "results")

    def __init__(self, size: int) -> None:
        self.results: list[Any] = [None] * size
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._remaining = size

    def settle(self, index: int, result: Any) -> None:
        assert self.results[index] is None, "an operation was settled twice"
        self.results[index] = result
        self._remaining -= 1
        # A caller that went away cancelled the future; its operations still commit.
        if self._remaining == 0 and not self.done.done():
            self.done.set_result(self.results)


@dataclass(slots=True, kw_only=True)
class Operation:
    """One request on its way through a batch. Capabilities subclass it with what they decide on.

    ``request_id`` is None for reads, which leave an access entry but no stored answer.
    ``deadline`` is in seconds of the loop's clock.
    """

    capability: "Capability"
    kind: OperationKind
    participant_id: str
    request_id: str | None
    request_digest: bytes
    deadline: float
    # Blind index of what names the card, 16 bytes; None when no card is named.
    card_index: bytes | None = None
    shard: int = 0
    # Taken before all others, from a queue of its own: a loss report must not wait behind the purchases it stops.
    urgent: bool = False
    terminal_id: str = ""
    card_id: int | None = None
    account_id: int | None = None
    catalogue_item: str | None = None
    catalogue_item_version: int = 0
    money: MoneyFields | None = None
    # True once the key store was asked, whatever it said.
    prepared: bool = False
    # Batches that went on without it, because somebody else held its card.
    passed_over: int = 0
    ticket: Ticket = field(init=False)
    index: int = field(init=False)

    @property
    def asks_keys(self) -> bool:
        """Whether its capability asks the key store for it."""
        return False

    def bind(self, card: Any) -> None:
        """Takes what ``card_index`` named: the directory's facts, or None.

        Raises:
            OneCardError: the operation is refused for this card, or for want of one.
        """

    def settle(self, result: Any) -> None:
        self.ticket.settle(self.index, result)


@dataclass(slots=True)
class StoredAnswer:
    """What ``operations`` holds for a request id."""

    request_id: str
    participant_id: str
    operation_kind: int
    card_id: int | None
    amount_minor: int | None
    terminal_id: str
    merchant_id: str | None
    stan: int | None
    terminal_time_unix_ms: int | None
    request_digest: bytes
    response: bytes


@dataclass(slots=True)
class Batch:
    """The rows of one batch, under their locks, and the database's time after the locks were taken.

    ``today`` is the calendar date, ``business_date`` the date that ends at the cut-off, both local.
    """

    cards: dict[int, CardState]
    accounts: dict[int, Account]
    now: datetime
    today: date
    business_date: date
    # Business date written YYYYMMDD, once for all answers of the batch.
    business_date_text: str
    # Set by the engine before each decision: names the operation in postings, RRN and authorization code.
    operation_id: int = 0
    # True when another request already used the operation's switch key.
    switch_key_used: bool = False
    # Digests of single-use tokens that were used before, of all capabilities.
    spent_tokens: set[bytes] = field(default_factory=set)
    # What capabilities read under the lock, by capability.
    facts: dict["Capability", Any] = field(default_factory=dict)


class Capability:
    """One kind of decision, as the engine calls it: in this order, once for each batch that holds its operations.

    A capability subclasses this and leaves out the steps it does not need.
    """

    async def prepare(self, operations: Sequence[Any]) -> None:
        """Asks the key store before the lock, once for all operations. Must not touch the database."""
        return

    async def read(
        self, connection: "asyncpg.Connection[Any]", operations: Sequence[Any], batch: Batch
    ) -> Any:
        """Reads under the lock what else the decisions need; the result stands in ``Batch.facts``."""
        return None

    def decide(self, operation: Any, batch: Batch) -> Outcome:
        """Decides one operation; changes working copies. An ``OneCardError`` must come before any change."""
        raise NotImplementedError

    async def persist(
        self, connection: "asyncpg.Connection[Any]", batch: Batch, decided: Sequence[Any]
    ) -> None:
        """Writes the capability's own rows in the batch's transaction; ``decided`` are pairs (operation, outcome)."""
        return

    def replay(self, operation: Any, response: bytes) -> Any:
        """Turns stored bytes back into the response message."""
        raise NotImplementedError


def reject(operations: Sequence[Operation], error: OneCardError) -> None:
    """Settles each operation with ``error``."""
    for operation in operations:
        operation.settle(error)
