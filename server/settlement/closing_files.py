"""The files of a closed day for one participant: CSV from the database, Parquet from the CSV, and a manifest.

The same rows give the same bytes, with the same version of pyarrow: order, texts and row groups are fixed, and nothing
tells when the files were made.
Memory is that of one block of lines. Must never write a file under its own name before all are whole.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from server.engine.operation import OperationKind
from server.settlement.closing_store import ClosingFile, digest_of
from server.settlement.positions import AccountUse, Position

FORMAT = "onecard closing 1"
BLOCK_BYTES = 4 << 20
# Types of pyarrow, by name: it takes much memory, and is loaded when files are made.
_TEXT, _NUMBER, _SMALL = "string", "int64", "int32"
COLUMNS = {
    "sequence": _NUMBER,
    "rrn": _TEXT,
    "request_id": _TEXT,
    "operation_kind": _SMALL,
    "response_code": _TEXT,
    "reason": _SMALL,
    "amount_minor": _NUMBER,
    "approved_minor": _NUMBER,
    "decided_at": _TEXT,
    "original_rrn": _TEXT,
    "terminal_id": _TEXT,
    "merchant_id": _TEXT,
    "stan": _SMALL,
    "mti_class": _SMALL,
    "channel": _SMALL,
    "flags": _SMALL,
    "settlement_change_minor": _NUMBER,
    "suspense_change_minor": _NUMBER,
    "fund_change_minor": _NUMBER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """Operations of one kind and response code, in 分."""

    kind: int
    response_code: str
    operation_count: int
    amount_minor: int
    approved_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedDay:
    """What a manifest tells beside its files."""

    business_date: date
    participant_id: str
    closed_at: datetime
    first_sequence: int
    last_sequence: int
    totals: Sequence[Total]
    positions: Mapping[AccountUse, Position]


def _column_types() -> dict[str, Any]:
    import pyarrow

    return {name: getattr(pyarrow, kind)() for name, kind in COLUMNS.items()}


def lines(csv_path: Path) -> Iterator[Any]:
    """The lines of a CSV file in batches of records."""
    import pyarrow.csv

    options = pyarrow.csv.ConvertOptions(column_types=_column_types(), strings_can_be_null=False)
    reading = pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)
    with pyarrow.csv.open_csv(csv_path, read_options=reading, convert_options=options) as reader:
        yield from reader


def write_parquet(csv_path: Path, parquet_path: Path) -> None:
    """The same lines as Parquet, a row group for each block."""
    import pyarrow.parquet

    schema = pyarrow.schema(list(_column_types().items()))
    with pyarrow.parquet.ParquetWriter(parquet_path, schema, compression="zstd") as writer:
        for batch in lines(csv_path):
            writer.write_batch(batch)


def totals_of(csv_path: Path) -> list[Total]:
    """The totals of a CSV file, by ascending kind and response code."""
    import pyarrow

    sums: Counter[tuple[int, str, int]] = Counter()
    for batch in lines(csv_path):
        grouped = (
            pyarrow.Table.from_batches([batch])
            .group_by(["operation_kind", "response_code"])
            .aggregate([("sequence", "count"), ("amount_minor", "sum"), ("approved_minor", "sum")])
        )
        for row in grouped.to_pylist():
            key = row["operation_kind"], row["response_code"]
            sums[(*key, 0)] += row["sequence_count"]
            sums[(*key, 1)] += row["amount_minor_sum"] or 0
            sums[(*key, 2)] += row["approved_minor_sum"] or 0
    return [
        Total(
            kind=kind,
            response_code=code,
            operation_count=sums[kind, code, 0],
            amount_minor=sums[kind, code, 1],
            approved_minor=sums[kind, code, 2],
        )
        for kind, code in sorted({key[:2] for key in sums})
    ]


def manifest_text(day: ClosedDay, folder: Path) -> str:
    """The manifest of the files in ``folder``; JSON, keys sorted, one line end at the end."""
    files = (ClosingFile.CSV, ClosingFile.PARQUET, ClosingFile.EXCEPTIONS)
    manifest = {
        "format": FORMAT,
        "business_date": f"{day.business_date:%Y%m%d}",
        "participant": day.participant_id,
        "currency_code": "CNY",
        "closed_at": day.closed_at.isoformat(),
        "first_sequence": day.first_sequence,
        "last_sequence": day.last_sequence,
        "operation_count": sum(total.operation_count for total in day.totals),
        "totals": [total_facts(total) for total in day.totals],
        "positions": {use.name.lower(): position_facts(place) for use, place in day.positions.items()},
        "files": {
            str(file): {"sha256": digest_of(folder / file), "bytes": (folder / file).stat().st_size}
            for file in files
        },
    }
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n"


def total_facts(total: Total) -> dict[str, Any]:
    """A total as the manifest writes it."""
    return {
        "operation_kind": total.kind,
        "kind": OperationKind(total.kind).name,
        "response_code": total.response_code,
        "operation_count": total.operation_count,
        "amount_minor": total.amount_minor,
        "approved_minor": total.approved_minor,
    }


def position_facts(position: Position) -> dict[str, int]:
    """A position as the manifest writes it."""
    return {
        "account_id": position.account_id,
        "opening_minor": position.opening_minor,
        "debit_minor": position.debit_minor,
        "credit_minor": position.credit_minor,
        "closing_minor": position.closing_minor,
        "posting_count": position.posting_count,
    }
