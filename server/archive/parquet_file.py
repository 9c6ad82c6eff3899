"""Parquet files of archived rows: written in row groups of bounded size, made whole by a rename, read back row by row.

This is the one module that imports pyarrow, so that no process has it in memory before it archives.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from server.archive.errors import ArchiveError
from server.archive.tables import (
    SCHEMA_VERSION,
    TABLES,
    ArchivedTable,
    ColumnKind,
    Sums,
    Tally,
)

UNFINISHED = ".unfinished"
# A row of operations has some 500 bytes: a group in memory has some 10 MB, and twice that while it is compressed.
ROWS_PER_GROUP = 20_000
TYPES = {
    ColumnKind.SMALL: pa.int16(),
    ColumnKind.INTEGER: pa.int32(),
    ColumnKind.BIG: pa.int64(),
    ColumnKind.TEXT: pa.string(),
    ColumnKind.BYTES: pa.binary(),
    ColumnKind.MOMENT: pa.timestamp("us", tz="UTC"),
    ColumnKind.DATE: pa.date32(),
}
# What canonical rows hold in the place of times and dates.
CANONICAL_TYPES = {ColumnKind.MOMENT: pa.int64(), ColumnKind.DATE: pa.int32()}
METADATA = "onecard."


def schema_of(table: ArchivedTable) -> "pa.Schema":
    return pa.schema([(name, TYPES[kind]) for name, kind in table.columns.items()])


class ArchiveWriter:
    """Writes one file beside its final name; ``finish`` makes it durable and gives it the name."""

    def __init__(self, path: Path, table: ArchivedTable, *, business_date: date) -> None:
        self._path = path
        self._unfinished = path.with_name(path.name + UNFINISHED)
        self._table = table
        self._business_date = business_date
        self._tally = Tally(table)
        self._unfinished.unlink(missing_ok=True)
        descriptor = os.open(self._unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._writer = pq.ParquetWriter(self._file, schema_of(table), compression="zstd")

    def append(self, rows: Sequence[Sequence[Any]]) -> None:
        """Writes canonical rows as one row group."""
        self._tally.add(rows)
        arrays = []
        for kind, values in zip(self._table.columns.values(), zip(*rows, strict=True), strict=True):
            array = pa.array(values, type=CANONICAL_TYPES.get(kind, TYPES[kind]))
            arrays.append(array.cast(TYPES[kind]) if kind in CANONICAL_TYPES else array)
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=schema_of(self._table)))

    def finish(self) -> Sums:
        """Writes the metadata, makes the file durable under its name, and gives what is in it."""
        sums = self._tally.sums()
        facts = {
            "table": self._table.name,
            "business_date": f"{self._business_date:%Y-%m-%d}",
            "schema_version": str(SCHEMA_VERSION),
            "row_count": str(sums.row_count),
            "amount_minor": str(sums.amount_minor),
            "digest_sha256": sums.digest.hex(),
        }
        self._writer.add_key_value_metadata({METADATA + name: value for name, value in facts.items()})
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._unfinished.replace(self._path)
        fsync_directory(self._path.parent)
        return sums

    def abandon(self) -> None:
        """Removes what was written."""
        self._file.close()
        self._unfinished.unlink(missing_ok=True)


def fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class ArchiveFacts:
    """What a file says of itself."""

    table: ArchivedTable
    business_date: date
    schema_version: int
    sums: Sums
    row_groups: int


class ArchiveReader:
    """Reads one file, a row group at a time."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            ArchiveError: there is no such file, or it is no archive of this release.
        """
        self._path = path
        try:
            self._file = pq.ParquetFile(path)
            self.facts = self._read_facts()
        except FileNotFoundError:
            raise ArchiveError("ARCHIVE_FILE_MISSING", f"there is no file {path}") from None
        except (OSError, pa.ArrowException, KeyError, ValueError, StopIteration):
            raise ArchiveError("ARCHIVE_FILE_WRONG", f"{path} is no archive, or a damaged one") from None
        if (
            self.facts.schema_version != SCHEMA_VERSION
            or self._file.schema_arrow.remove_metadata() != schema_of(self.facts.table)
        ):
            raise ArchiveError(
                "ARCHIVE_FILE_WRONG",
                f"{path} has schema version {self.facts.schema_version}, this release reads {SCHEMA_VERSION}",
            )

    def _read_facts(self) -> ArchiveFacts:
        metadata = self._file.metadata.metadata or {}
        texts = {
            key.decode().removeprefix(METADATA): value.decode()
            for key, value in metadata.items()
            if key.startswith(METADATA.encode())
        }
        return ArchiveFacts(
            table=next(table for table in TABLES if table.name == texts["table"]),
            business_date=date.fromisoformat(texts["business_date"]),
            schema_version=int(texts["schema_version"]),
            sums=Sums(
                int(texts["row_count"]), int(texts["amount_minor"]), bytes.fromhex(texts["digest_sha256"])
            ),
            row_groups=self._file.num_row_groups,
        )

    def group(self, number: int) -> list[tuple[Any, ...]]:
        """The canonical rows of a row group.

        Raises:
            ArchiveError: the file is damaged.
        """
        try:
            read = self._file.read_row_group(number)
        except (OSError, pa.ArrowException):
            raise ArchiveError("ARCHIVE_FILE_WRONG", f"{self._path} is damaged") from None
        columns = []
        for (name, kind), column in zip(self.facts.table.columns.items(), read.columns, strict=True):
            assert name in read.schema.names, "the schema was compared"
            columns.append(
                (column.cast(CANONICAL_TYPES[kind]) if kind in CANONICAL_TYPES else column).to_pylist()
            )
        return list(zip(*columns, strict=True))

    def groups(self) -> Iterator[list[tuple[Any, ...]]]:
        """All canonical rows, a row group at a time."""
        for number in range(self.facts.row_groups):
            yield self.group(number)

    def sums(self) -> Sums:
        """What the rows of the file come to, read one by one."""
        tally = Tally(self.facts.table)
        for rows in self.groups():
            tally.add(rows)
        return tally.sums()

    def close(self) -> None:
        self._file.close()


def read_sums(path: Path) -> Sums:
    """What the rows of a file come to.

    Raises:
        ArchiveError: the file is missing or damaged.
    """
    reader = ArchiveReader(path)
    try:
        return reader.sums()
    finally:
        reader.close()
