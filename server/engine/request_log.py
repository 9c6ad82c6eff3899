"""One outcome per request id: look up, compare, replay.

The stored answer is decided first of all. Other content under a known id is an error that names the field and never
shows its value.
"""

import hashlib
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, TypeAlias

import asyncpg

from server.database.statements import load
from server.engine.operation import Operation, OperationKind, StoredAnswer, Tombstone

FIND_ANSWERS = load("server.engine")["find_answers"]

# Stands for acquirer, STAN, MTI class and terminal: 16 bytes.
SwitchKey: TypeAlias = bytes


def look_back_date(business_date: date, *, hours: int) -> date:
    """First business date whose partition may hold an id of the last ``hours``.

    One date more than the hours need, because a business date begins on the evening before.
    """
    return business_date - timedelta(days=-(-hours // 24) + 1)


async def find_answers(
    connection: "asyncpg.Connection[Any]", request_ids: Sequence[str], *, shard: int, since: date
) -> dict[str, StoredAnswer]:
    """Stored answers by request id. Must run after the card locks of their operations were taken."""
    rows = await connection.fetch(FIND_ANSWERS, request_ids, shard, since)
    return {row[0]: StoredAnswer(*row) for row in rows}


def switch_key(participant_id: str, *, stan: int, mti_class: int, terminal_id: str) -> SwitchKey:
    """The switch's own key of an operation within its business date; migration 0003 makes the same in SQL."""
    text = f"{participant_id}|{stan}|{mti_class}|{terminal_id}"
    return hashlib.sha256(text.encode()).digest()[:16]


def switch_key_of(operation: Operation) -> SwitchKey | None:
    """None where no money moves."""
    return operation.money.switch_key if operation.money is not None else None


def claim_numbers(operations: Sequence[Operation]) -> list[int]:
    """One number, 63 bits, for each request id and switch key, ascending; two keys may share one."""
    keys: set[str | bytes] = {o.request_id for o in operations if o.request_id is not None}
    keys |= {key for operation in operations if (key := switch_key_of(operation)) is not None}
    # A reversal with the wrong card must not race with its original in another shard.
    keys.update(*(operation.named_keys for operation in operations))
    digests = (hashlib.blake2b(repr(key).encode(), digest_size=8).digest() for key in keys)
    return sorted({int.from_bytes(digest) >> 1 for digest in digests})


def answers_late_original(operation: Operation, stored: StoredAnswer) -> bool:
    """Whether what is stored is the place that a reversal kept for this money operation of the same caller."""
    return (
        stored.operation_kind == OperationKind.TOMBSTONE
        and operation.money is not None
        and operation.participant_id == stored.participant_id
    )


def tombstone_answer(tombstone: Tombstone, reversal: Operation) -> StoredAnswer:
    """The tombstone as its row will show it, for an original later in the same batch."""
    return StoredAnswer(
        request_id=tombstone.request_id,
        participant_id=reversal.participant_id,
        operation_kind=OperationKind.TOMBSTONE,
        card_id=reversal.card_id,
        amount_minor=None,
        terminal_id=tombstone.terminal_id,
        merchant_id=None,
        stan=tombstone.stan,
        terminal_time_unix_ms=None,
        account_id=None,
        request_digest=b"",
        response=tombstone.response,
    )


def tombstone_switch_key(tombstone: Tombstone, reversal: Operation) -> SwitchKey | None:
    """The switch key that the tombstone takes; None where it stands for a request id only."""
    if tombstone.stan is None or tombstone.mti_class is None:
        return None
    return switch_key(
        reversal.participant_id,
        stan=tombstone.stan,
        mti_class=tombstone.mti_class,
        terminal_id=tombstone.terminal_id,
    )


def as_stored(operation: Operation) -> StoredAnswer:
    """The operation as its row will show it, for a twin later in the same batch."""
    money = operation.money
    return StoredAnswer(
        request_id=operation.request_id or "",
        participant_id=operation.participant_id,
        operation_kind=operation.kind,
        card_id=operation.card_id,
        amount_minor=money.amount_minor if money else None,
        terminal_id=operation.terminal_id,
        merchant_id=money.merchant_id if money else None,
        stan=money.stan if money else None,
        terminal_time_unix_ms=money.terminal_time_unix_ms if money else None,
        account_id=operation.account_id if money else None,
        request_digest=operation.request_digest,
        response=b"",
    )


def differing_field(operation: Operation, stored: StoredAnswer) -> str | None:
    """Names the first field in which ``operation`` differs from what its request id stands for; None when equal.

    The keyed digest tells whether anything differs; the columns tell what, as far as they hold it.
    """
    if operation.participant_id != stored.participant_id:
        return "caller"
    if operation.kind != stored.operation_kind:
        return "operation"
    if operation.request_digest == stored.request_digest:
        return None
    # A card that was unknown then may be known now: its number alone does not tell a difference of content.
    # The card of an issue is made by the decision and says nothing about the request.
    if operation.card_id != stored.card_id and operation.kind is not OperationKind.ISSUE_CARD:
        return "card" if operation.money is None else "pan"
    comparisons: list[tuple[str, object, object]] = [
        ("terminal_id", operation.terminal_id, stored.terminal_id)
    ]
    if (money := operation.money) is not None:
        comparisons += [
            ("amount_minor", money.amount_minor, stored.amount_minor),
            ("stan", money.stan, stored.stan),
            ("merchant_id", money.merchant_id, stored.merchant_id),
            ("terminal_time_unix_ms", money.terminal_time_unix_ms, stored.terminal_time_unix_ms),
            ("wallet", operation.account_id, stored.account_id),
        ]
    for name, new, old in comparisons:
        if new != old:
            return name
    return "chip" if operation.kind is OperationKind.PURCHASE else "content"
