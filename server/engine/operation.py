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
    CASH_WITHDRAWAL = 4
    TRANSFER = 5
    TAP = 6
    PRE_AUTHORIZATION = 7
    INCREMENT = 8
    COMPLETION = 9
    VOID = 10
    REFUND = 11
    REVERSAL = 12
    BENEFIT_CREDIT = 13
    BALANCE_INQUIRY = 14
    # Stands in the place of an original whose reversal came first: under its request id and its switch key.
    TOMBSTONE = 15
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
    REGISTER_CARD_TOKEN = 60
    REVOKE_CARD_TOKEN = 61


@dataclass(slots=True)
class CardState:
    """Working copy of a ``card_states`` row, under its lock."""

    shard: int
    card_id: int
    status: int
    atc_highest: int
    atc_window: int
    transaction_amount_max_minor: int
    day_amount_max_minor: int
    # Wrong PINs in a row.
    pin_tries: int
    # What it has used of its limits, packed.
    usage: bytes
    # Where the row is, as PostgreSQL writes it: ``ctid``, 6 bytes.
    place: bytes = b""
    changed: bool = False


@dataclass(slots=True)
class Account:
    """Working copy of an ``accounts`` row, under the lock of its card.

    ``new_for_card_id`` is the card of a wallet that has no row yet: its first use makes one.
    """

    shard: int
    account_id: int
    posted_minor: int
    held_minor: int
    # As of ``CardState``; none for a wallet that has no row yet.
    place: bytes = b""
    changed: bool = False
    new_for_card_id: int | None = None

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
    """The money columns of an operation row; ``switch_key`` stands for acquirer, STAN, MTI class and terminal.

    ``channel`` is the channel whose limits it uses, ``flags`` what is noted for reconciliation (1 advice, 2 forced).
    """

    amount_minor: int
    stan: int
    mti_class: int
    merchant_id: str
    terminal_time_unix_ms: int
    switch_key: bytes
    channel: int | None = None
    flags: int | None = None


@dataclass(slots=True)
class Outcome:
    """What deciding one operation came to.

    ``message`` goes to the caller. Its serialised form is stored under the request id; ``stored`` instead, where
    some of it is sealed, and ``Capability.replay`` undoes it. ``response_code`` is the DE 39, where there is one.
    ``approved_minor`` is the money that was moved or held; ``original_operation_id`` the operation that it followed.
    ``tombstone`` asks for a row in the place of an original that has not come yet.
    """

    message: Any
    reason: int
    response_code: str | None = None
    postings: Sequence[Posting] = ()
    stored: bytes | None = None
    approved_minor: int | None = None
    original_operation_id: int | None = None
    tombstone: "Tombstone | None" = None


@dataclass(slots=True)
class Tombstone:
    """What answers an original that comes after its reversal: a decline, already serialised.

    ``request_id`` is the original's where it is known, else any; ``mti_class`` is None where its STAN is not known.
    """

    request_id: str
    terminal_id: str
    stan: int | None
    mti_class: int | None
    reason: int
    response_code: str
    response: bytes


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


@dataclass(slots=True)
class OtherCard:
    """A second card of an operation: ``index``, 16 bytes, is the blind index of what names it; the rest is bound."""

    index: bytes
    card_id: int | None = None
    account_id: int | None = None
    shard: int = 0


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
    # The second card, whose rows are locked and read like the first one's.
    other: OtherCard | None = None
    catalogue_item: str | None = None
    catalogue_item_version: int = 0
    money: MoneyFields | None = None
    # True once the key store was asked, whatever it said.
    prepared: bool = False
    # Request ids and switch keys of other operations that it decides about: claimed like its own.
    named_keys: tuple[str | bytes, ...] = ()
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

    def bind_other(self, card: Any) -> None:
        """Takes what ``other`` named: the directory's facts, or None."""

    @property
    def shards(self) -> tuple[int, ...]:
        """The shards whose rows it locks, ascending."""
        other = self.other
        if other is None or other.shard == self.shard:
            return (self.shard,)
        return tuple(sorted((self.shard, other.shard)))

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
    account_id: int | None
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
    # Kind of the operation that already used the operation's switch key.
    switch_key_holder: OperationKind | None = None
    # Shards of the database, of which this batch locks one or two.
    shard_count: int = 1
    # True when keys that came before are left to the unique indexes.
    is_hopeful: bool = False
    # Digests of single-use tokens that were used before, of all capabilities.
    spent_tokens: set[bytes] = field(default_factory=set)
    # What the cards' PINs are verified against, working copies by card id, of all capabilities.
    pins: dict[int, Any] = field(default_factory=dict)
    # Participants' own tokens of cards, working copies by blind index, of all capabilities.
    card_tokens: dict[bytes, Any] = field(default_factory=dict)
    # What capabilities read under the lock, by capability.
    facts: dict["Capability", Any] = field(default_factory=dict)

    def account(self, account_id: int, *, card_id: int, shard: int) -> Account:
        """The working copy of a wallet; one that has no row yet begins at zero, and changing it makes one."""
        account = self.accounts.get(account_id)
        if account is None:
            account = self.accounts[account_id] = Account(shard, account_id, 0, 0, new_for_card_id=card_id)
        return account


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
