"""Reads events by their numbers, a bounded window at a time, and proves that none is missing.

The range of a window ends at a number that was given, so every batch of it is committed and can be seen. Batches must
follow one another without a gap and be online whole; where they are not, the reader is told and nothing is skipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from server.database.pool import acquired
from server.database.statements import load
from server.errors import StateConflictError

READ_EVENTS = load("server.settlement")["read_events"]
ARCHIVED_THROUGH = load("server.settlement")["archived_through"]
# Numbers in one window, not events: a participant with few of them still goes through all.
WINDOW = 2_048
RRNS = 10**12
FORCED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """What a reader is shown; None means all."""

    participant_id: str | None = None
    kinds: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An operation in its place."""

    sequence: int
    operation_id: int
    request_id: str
    kind: int
    response_code: str
    reason: int
    amount_minor: int
    approved_minor: int
    business_date: str
    decided_at: datetime
    original_operation_id: int | None
    terminal_id: str
    merchant_id: str
    stan: int
    participant_id: str
    card_id: int
    is_forced_post: bool


@dataclass(frozen=True, slots=True)
class EventWindow:
    """The events of a range that end with ``through_sequence``, in order."""

    events: Sequence[RecordedEvent]
    through_sequence: int


def rrn(operation_id: int | None) -> str:
    """Retrieval reference number: twelve digits; empty for none."""
    return "" if operation_id is None else f"{operation_id % RRNS:012d}"


async def read_window(
    pool: "asyncpg.Pool[Any]", *, after_sequence: int, head_sequence: int, shown: EventFilter
) -> EventWindow:
    """The events after ``after_sequence``, at most ``WINDOW`` numbers of them.

    Args:
        head_sequence: a number that was given to an event, and more than ``after_sequence``.
    Raises:
        StateConflictError: some of them are archived.
        DatabaseUnavailableError: the database does not answer.
    """
    through = min(head_sequence, after_sequence + WINDOW)
    async with acquired(pool) as connection:
        rows = await connection.fetch(READ_EVENTS, after_sequence, through, shown.participant_id, shown.kinds)
        if not _is_whole(rows, after_sequence=after_sequence, through_sequence=through):
            raise _archived(await connection.fetchval(ARCHIVED_THROUGH))
    return EventWindow([_event(row) for row in rows if row["is_asked_for"]], through)


def _is_whole(rows: Sequence[Any], *, after_sequence: int, through_sequence: int) -> bool:
    """Whether no batch is missing, nor operations of one."""
    covered, batch_sequence = after_sequence, 0
    for row in rows:
        if row["batch_sequence"] == batch_sequence:
            continue
        batch_sequence = row["batch_sequence"]
        if batch_sequence > covered + 1 or row["online"] != row["operation_count"]:
            break
        covered = batch_sequence + row["operation_count"] - 1
    return covered >= through_sequence


def _archived(through_sequence: int) -> StateConflictError:
    """Tells whoever begins anew where."""
    return StateConflictError(
        "EVENTS_ARCHIVED",
        f"events after this number are archived: all after number {through_sequence} are online",
    )


def _event(row: Any) -> RecordedEvent:
    return RecordedEvent(
        sequence=row["sequence"],
        operation_id=row["operation_id"],
        request_id=str(row["request_id"]),
        kind=row["operation_kind"],
        response_code=row["response_code"] or "",
        reason=row["reason"],
        amount_minor=row["amount_minor"] or 0,
        approved_minor=row["approved_minor"] or 0,
        business_date=f"{row['business_date']:%Y%m%d}",
        decided_at=row["decided_at"],
        original_operation_id=row["original_operation_id"],
        terminal_id=row["terminal_id"],
        merchant_id=row["merchant_id"] or "",
        stan=row["stan"] or 0,
        participant_id=row["participant_id"],
        card_id=row["card_id"] or 0,
        is_forced_post=bool((row["flags"] or 0) & FORCED),
    )
