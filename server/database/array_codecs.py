"""Arrays between Python and PostgreSQL's binary format, a column at a time.

The driver looks at every element of an array by itself: a row of fifteen columns costs it 3 µs, of which a third goes
into asking whether the row is perhaps an array. Here the loops run inside ``struct``, ``zip`` and ``join``. A lane's
connection registers these codecs for arrays of the scalar types below and of composite types made of them; an array of
anything else stays with the driver. Values are checked by ``struct`` alone: what does not fit raises, never wraps.

Source: PostgreSQL 18, src/backend/utils/adt/arrayfuncs.c ``array_recv`` and rowtypes.c ``record_recv``.
"""

import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import cache
from itertools import chain, repeat
from typing import Any, NamedTuple

import asyncpg

Cells = Sequence[Any]

_INT4 = struct.Struct(">i")
_HEAD = struct.Struct(">ii")
# Dimensions, whether there are NULLs, element type; then length and first index of the one dimension.
_ARRAY_HEAD = struct.Struct(">iiIii")
_EMPTY_HEAD = struct.Struct(">iiI")
_NULL_SIZE = -1
_DATE_ZERO = date(2000, 1, 1).toordinal()

# The columns of every composite type of ours, and the built-in scalar types, each with the type of its arrays.
COLUMNS_OF_ARRAYS = """
SELECT t.typarray::bigint, a.typname::text, t.oid::bigint, coalesce(c.typname, t.typname)::text,
       coalesce(c.oid, t.oid)::bigint
FROM pg_type AS t
JOIN pg_type AS a ON a.oid = t.typarray
LEFT JOIN pg_class AS k ON k.oid = t.typrelid AND k.relkind = 'c'
LEFT JOIN pg_attribute AS f ON f.attrelid = k.oid AND f.attnum > 0 AND NOT f.attisdropped
LEFT JOIN pg_type AS c ON c.oid = f.atttypid
WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typname = ANY ($1::text[]) OR c.oid IS NOT NULL
ORDER BY t.oid, f.attnum
"""


class _Scalar(NamedTuple):
    """A scalar type: ``code`` is its form for ``struct``, empty when its size varies.

    ``out`` turns a value into what ``struct`` or the wire takes, ``back`` what comes from there into a value; None when
    they are the same.
    """

    code: str
    out: Callable[[Any], Any] | None = None
    back: Callable[[Any], Any] | None = None


def _uuid_bytes(value: str | uuid.UUID) -> bytes:
    if isinstance(value, uuid.UUID):
        return value.bytes
    raw = bytes.fromhex(value.replace("-", ""))
    if len(raw) != 16:
        raise ValueError("a UUID has 16 bytes")
    return raw


_SCALARS: dict[str, _Scalar] = {
    "bytea": _Scalar(""),
    "date": _Scalar(
        "i", lambda day: day.toordinal() - _DATE_ZERO, lambda days: date.fromordinal(days + _DATE_ZERO)
    ),
    "int2": _Scalar("h"),
    "int4": _Scalar("i"),
    "int8": _Scalar("q"),
    "tid": _Scalar("6s"),
    "text": _Scalar("", str.encode, bytes.decode),
    "uuid": _Scalar("16s", _uuid_bytes, lambda raw: uuid.UUID(bytes=raw)),
}


class Column:
    """One column of a composite type, or the element of an array of scalars."""

    __slots__ = ("_back", "_out", "_packer", "code", "oid", "size")

    def __init__(self, type_name: str, oid: int) -> None:
        self.code, self._out, self._back = _SCALARS[type_name]
        self.oid = oid
        self._packer = struct.Struct(">" + self.code)
        # Nothing when the size varies.
        self.size = self._packer.size

    @property
    def is_plain(self) -> bool:
        """Whether ``struct`` gives the value itself."""
        return bool(self.code) and self._back is None

    def cells_out(self, cells: Cells) -> Cells:
        """What ``struct`` or the wire takes of these values, NULLs kept."""
        out = self._out
        if out is None:
            return cells
        if None in cells:
            return [None if cell is None else out(cell) for cell in cells]
        return list(map(out, cells))

    def sizes_and_bytes(self, cells: Cells) -> tuple[list[int], list[bytes]]:
        """Sizes and bytes of what ``cells_out`` gave, cell by cell: for what varies in size or is NULL."""
        if self.code:
            pack = self._packer.pack
            cells = [cell if cell is None else pack(cell) for cell in cells]
        if None in cells:
            sizes = [_NULL_SIZE if cell is None else len(cell) for cell in cells]
            return sizes, [b"" if cell is None else cell for cell in cells]
        return list(map(len, cells)), list(cells)

    def value(self, raw: bytes | None) -> Any:
        """The value of a cell."""
        if raw is None:
            return None
        cell = self._packer.unpack(raw)[0] if self.code else raw
        return cell if self._back is None else self._back(cell)


class ScalarArray:
    """Codec of an array of one scalar type: any sized collection of values, and a list of them back."""

    def __init__(self, element: Column) -> None:
        self._element = element
        # What reads an element that is no NULL, its size in front.
        self._plain = struct.Struct(">4x" + element.code) if element.is_plain else None

    def encode(self, values: Iterable[Any]) -> bytes:
        element = self._element
        cells = element.cells_out(list(values))
        if element.code and None not in cells:
            body = b"".join(map(_struct("i" + element.code).pack, repeat(element.size), cells))
        else:
            sizes, contents = element.sizes_and_bytes(cells)
            body = b"".join(chain.from_iterable(zip(map(_INT4.pack, sizes), contents, strict=True)))
        return _array_head(len(cells), element.oid, has_nulls=None in cells) + body

    def decode(self, raw: bytes) -> list[Any]:
        plain = self._plain
        if plain is not None and len(raw) == _ARRAY_HEAD.size + _length(raw) * plain.size:
            return list(chain.from_iterable(plain.iter_unpack(raw[_ARRAY_HEAD.size :])))
        value = self._element.value
        return [value(element) for element in _elements(raw)]


class RowArray:
    """Codec of an array of a composite type: tuples in the order of its columns, and a list of tuples back."""

    def __init__(self, oid: int, columns: Sequence[Column]) -> None:
        self._oid = oid
        self._columns = columns
        self._count = _INT4.pack(len(columns))
        self._heads = [_HEAD.pack(column.oid, column.size) for column in columns]
        self._plain_rows = _plain_rows(columns)

    def encode(self, rows: Sequence[Sequence[Any]]) -> bytes:
        if not rows:
            return _array_head(0, self._oid)
        # The pieces of a row that follow one another, each as a sequence over all rows.
        pieces: list[Iterable[bytes]] = [repeat(self._count)]
        fixed: list[tuple[str, bytes, Cells]] = []
        for column, head, values in zip(self._columns, self._heads, zip(*rows, strict=True), strict=True):
            cells = column.cells_out(values)
            if column.code and None not in cells:
                fixed.append((column.code, head, cells))
                continue
            if fixed:
                pieces.append(_packed(fixed))
                fixed = []
            sizes, contents = column.sizes_and_bytes(cells)
            pieces += [map(_HEAD.pack, repeat(column.oid), sizes), contents]
        if fixed:
            pieces.append(_packed(fixed))
        bodies = list(map(b"".join, zip(*pieces, strict=False)))
        sizes_out = map(_INT4.pack, map(len, bodies))
        body = b"".join(chain.from_iterable(zip(sizes_out, bodies, strict=True)))
        return _array_head(len(bodies), self._oid) + body

    def decode(self, raw: bytes) -> list[tuple[Any, ...]]:
        plain = self._plain_rows
        # Rows of plain numbers without a NULL, which would be shorter.
        if plain is not None and len(raw) == _ARRAY_HEAD.size + _length(raw) * plain.size:
            return list(plain.iter_unpack(raw[_ARRAY_HEAD.size :]))
        return [self._row(element) for element in _elements(raw) if element is not None]

    def _row(self, raw: bytes) -> tuple[Any, ...]:
        values = []
        position = _INT4.size
        for column in self._columns:
            _, size = _HEAD.unpack_from(raw, position)
            position += _HEAD.size
            end = position + max(size, 0)
            values.append(column.value(None if size == _NULL_SIZE else raw[position:end]))
            position = end
        return tuple(values)


Codec = ScalarArray | RowArray


async def register_array_codecs(connection: "asyncpg.Connection[Any]") -> None:
    """Has the connection encode and decode with the codecs here every array whose elements they know.

    A row's place (``ctid``) is 6 bytes to it, which are only ever handed back.
    """
    await connection.set_type_codec("tid", schema="pg_catalog", encoder=bytes, decoder=bytes, format="binary")
    rows = await connection.fetch(COLUMNS_OF_ARRAYS, list(_SCALARS))
    columns: dict[tuple[int, str, int], list[Column | None]] = {}
    for array_oid, array_name, element_oid, type_name, column_oid in rows:
        column = Column(type_name, column_oid) if type_name in _SCALARS else None
        columns.setdefault((array_oid, array_name, element_oid), []).append(column)
    for (array_oid, array_name, element_oid), found in columns.items():
        known = [column for column in found if column is not None]
        if len(known) < len(found):
            continue
        is_scalar = known[0].oid == element_oid
        codec: Codec = ScalarArray(known[0]) if is_scalar else RowArray(element_oid, known)
        # What ``set_type_codec`` calls in the end; that one refuses arrays, which are no scalars to it.
        connection.get_settings().add_python_codec(
            array_oid, array_name, "", [], "scalar", codec.encode, codec.decode, "binary"
        )


def _array_head(count: int, element_oid: int, *, has_nulls: bool = False) -> bytes:
    if not count:
        return _EMPTY_HEAD.pack(0, 0, element_oid)
    return _ARRAY_HEAD.pack(1, has_nulls, element_oid, count, 1)


def _length(raw: bytes) -> int:
    dimensions: int = _INT4.unpack_from(raw)[0]
    if dimensions > 1:
        raise ValueError("an array here has one dimension")
    return _ARRAY_HEAD.unpack_from(raw)[3] if dimensions else 0


def _elements(raw: bytes) -> Iterator[bytes | None]:
    position = _ARRAY_HEAD.size
    for _ in range(_length(raw)):
        (size,) = _INT4.unpack_from(raw, position)
        position += _INT4.size
        end = position + max(size, 0)
        yield None if size == _NULL_SIZE else raw[position:end]
        position = end


def _packed(fixed: Sequence[tuple[str, bytes, Cells]]) -> Iterable[bytes]:
    """The bytes of neighbouring columns of fixed size, row by row."""
    codes = "".join(f"8s{code}" for code, _, _ in fixed)
    cells = chain.from_iterable((repeat(head), column) for _, head, column in fixed)
    return map(_struct(codes).pack, *cells)


def _plain_rows(columns: Sequence[Column]) -> struct.Struct | None:
    """What reads a row of numbers whole, its own size in front; None when a column is something else."""
    if not all(column.is_plain for column in columns):
        return None
    return struct.Struct(">8x" + "".join(f"8x{column.code}" for column in columns))


@cache
def _struct(codes: str) -> struct.Struct:
    return struct.Struct(">" + codes)
