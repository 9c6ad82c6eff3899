"""What an archive holds: the columns of both tables, and the canonical form of a row that its digest is made of.

The canonical form is made of whole numbers, texts, bytes and nothing else, so that a database and a file give the same.
A change of the tables is a new ``SCHEMA_VERSION``; older files keep theirs.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any

SCHEMA_VERSION = 1
_CANONICAL = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, default=bytes.hex, check_circular=False
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_ORDINAL = EPOCH.toordinal()


class ColumnKind(Enum):
    """Type of a column, in the file and in canonical form."""

    SMALL = "int16"
    INTEGER = "int32"
    BIG = "int64"
    TEXT = "string"
    BYTES = "binary"
    # Canonical: microseconds since 1970, UTC.
    MOMENT = "timestamp[us, UTC]"
    # Canonical: days since 1970.
    DATE = "date32"


@dataclass(frozen=True, slots=True)
class ArchivedTable:
    """A partitioned table: its columns in the order of canonical rows, and the place of ``amount_minor`` in them."""

    name: str
    columns: dict[str, ColumnKind]
    amount_at: int


def _table(name: str, **columns: ColumnKind) -> ArchivedTable:
    return ArchivedTable(name, columns, list(columns).index("amount_minor"))


OPERATIONS = _table(
    "operations",
    operation_id=ColumnKind.BIG,
    request_id=ColumnKind.TEXT,
    card_id=ColumnKind.BIG,
    amount_minor=ColumnKind.BIG,
    terminal_time_unix_ms=ColumnKind.BIG,
    decided_at=ColumnKind.MOMENT,
    business_date=ColumnKind.DATE,
    stan=ColumnKind.INTEGER,
    shard=ColumnKind.SMALL,
    operation_kind=ColumnKind.SMALL,
    mti_class=ColumnKind.SMALL,
    reason=ColumnKind.SMALL,
    participant_id=ColumnKind.TEXT,
    terminal_id=ColumnKind.TEXT,
    merchant_id=ColumnKind.TEXT,
    response_code=ColumnKind.TEXT,
    switch_key=ColumnKind.BYTES,
    request_digest=ColumnKind.BYTES,
    response=ColumnKind.BYTES,
    account_id=ColumnKind.BIG,
    approved_minor=ColumnKind.BIG,
    original_operation_id=ColumnKind.BIG,
    channel=ColumnKind.SMALL,
    flags=ColumnKind.SMALL,
)
POSTINGS = _table(
    "postings",
    operation_id=ColumnKind.BIG,
    posting_number=ColumnKind.SMALL,
    debit_account_id=ColumnKind.BIG,
    credit_account_id=ColumnKind.BIG,
    amount_minor=ColumnKind.BIG,
    business_date=ColumnKind.DATE,
    shard=ColumnKind.SMALL,
)
TABLES = (OPERATIONS, POSTINGS)


@dataclass(frozen=True, slots=True)
class Sums:
    """What is compared of a table, a file and a record: rows, sum of ``amount_minor`` in 分, SHA-256 of the rows."""

    row_count: int
    amount_minor: int
    digest: bytes


@dataclass(slots=True)
class Tally:
    """Adds up canonical rows as they pass."""

    table: ArchivedTable
    row_count: int = 0
    amount_minor: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Adds rows in their order."""
        amount_at = self.table.amount_at
        self.row_count += len(rows)
        self.amount_minor += sum(row[amount_at] or 0 for row in rows)
        for row in rows:
            self._hash.update(canonical_line(row))

    def sums(self) -> Sums:
        return Sums(self.row_count, self.amount_minor, self._hash.digest())


def canonical_line(row: Sequence[Any]) -> bytes:
    """A row as the digest takes it: a JSON array without spaces, bytes in hexadecimal, UTF-8, and a line feed."""
    return _CANONICAL.encode(row).encode() + b"\n"


def database_rows(table: ArchivedTable, rows: Iterable[Sequence[Any]]) -> Iterable[tuple[Any, ...]]:
    """Canonical rows as the driver takes them for COPY."""
    kinds = list(table.columns.values())
    moments = [at for at, kind in enumerate(kinds) if kind is ColumnKind.MOMENT]
    dates = [at for at, kind in enumerate(kinds) if kind is ColumnKind.DATE]
    for row in rows:
        values = list(row)
        for at in moments:
            values[at] = EPOCH + timedelta(microseconds=values[at])
        for at in dates:
            values[at] = date.fromordinal(EPOCH_ORDINAL + values[at])
        yield tuple(values)


def partition_name(table: ArchivedTable, business_date: date) -> str:
    return f"{table.name}_{business_date:%Y%m%d}"
