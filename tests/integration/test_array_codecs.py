"""Arrays over a lane's connection mean what they mean over the driver's own codecs, in both directions."""

import random
import uuid
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from server.database.array_codecs import register_array_codecs

OPERATION = (
    *(2**62, uuid.UUID(int=7), -1, 10**12, 0, 999_999, 1, -(2**15), 14),
    *("bank-01", "终端1", "", "00", bytes(16), bytes(range(256)) * 5),
    *(10**12 + 1_000_000, 100, 7, 1, 3, bytes(range(16))),
)
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "operation_row": [OPERATION],
    "posting_row": [(1, 1, 2**63 - 1, -(2**63), 5), (2, 1, 3, 4, 5)],
    "account_change": [(1_000_000, 5, 0)],
    "card_change": [
        (1, 2, 65_535, -(2**63), 3, bytes(28)),
        (2, 2, 0, 2**63 - 1, 0, b""),
    ],
}
VALUES: dict[str, list[Any]] = {
    "bigint": [2**63 - 1, -(2**63), 0],
    "integer": [2**31 - 1, -(2**31), 0],
    "smallint": [2**15 - 1, -(2**15), 0],
    "text": ["", "a", "江西" * 400],
    "bytea": [b"", b"\x00", bytes(2_000)],
    "uuid": [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)],
    "date": [date(2000, 1, 1), date(1, 1, 2)],
}


@pytest_asyncio.fixture
async def connections(trial_database: str) -> AsyncIterator[tuple[Any, Any]]:
    """With the codecs, and without."""
    ours, drivers = await asyncpg.connect(trial_database), await asyncpg.connect(trial_database)
    await register_array_codecs(ours)
    yield ours, drivers
    await ours.close()
    await drivers.close()


async def assert_same_meaning(connections: tuple[Any, Any], type_name: str, values: list[Any]) -> None:
    ours, drivers = connections
    as_text = f"SELECT ($1::{type_name}[])::text"
    assert await ours.fetchval(as_text, values) == await drivers.fetchval(as_text, values)
    as_array = f"SELECT $1::{type_name}[]"
    # The driver's rows are records, equal to the tuples of their values.
    assert await ours.fetchval(as_array, values) == await drivers.fetchval(as_array, values)


@pytest.mark.parametrize("type_name", ROWS)
async def test_rows_are_the_same_to_both(connections: tuple[Any, Any], type_name: str) -> None:
    rows = ROWS[type_name]
    await assert_same_meaning(connections, type_name, rows)
    await assert_same_meaning(connections, type_name, rows * 300)
    await assert_same_meaning(connections, type_name, [])


@pytest.mark.parametrize("type_name", ROWS)
async def test_nulls_may_stand_in_any_column_of_any_row(connections: tuple[Any, Any], type_name: str) -> None:
    rng = random.Random(1)
    for share in (0.1, 0.5, 1.0):
        rows = [
            tuple(None if rng.random() < share else value for value in row) for row in ROWS[type_name] * 20
        ]
        await assert_same_meaning(connections, type_name, rows)


@pytest.mark.parametrize("type_name", VALUES)
async def test_scalars_are_the_same_to_both(connections: tuple[Any, Any], type_name: str) -> None:
    values = VALUES[type_name]
    for some in (values, values * 200, [None, *values], [None], []):
        await assert_same_meaning(connections, type_name, some)


async def test_a_uuid_may_be_given_as_text(connections: tuple[Any, Any]) -> None:
    texts = [str(uuid.UUID(int=number)) for number in (1, 2**100)]
    await assert_same_meaning(connections, "uuid", texts)


async def test_a_set_is_an_array_too(connections: tuple[Any, Any]) -> None:
    ours, _ = connections
    assert sorted(await ours.fetchval("SELECT $1::bigint[]", {3, 1, 2})) == [1, 2, 3]


@pytest.mark.parametrize(
    ("type_name", "values"),
    [
        ("bigint", [2**63]),
        ("smallint", [2**15]),
        ("bigint", ["1"]),
        ("text", [1]),
        ("bytea", ["text"]),
        ("uuid", ["1234"]),
        ("posting_row", [(1, 1, 1, 1)]),
        ("posting_row", [(1, 2**15, 1, 1, 1)]),
        ("posting_row", [(1, 1, 1, 1, 1), (1, 1, 1, 1)]),
    ],
)
async def test_what_does_not_fit_is_refused_and_the_connection_serves_on(
    connections: tuple[Any, Any], type_name: str, values: list[Any]
) -> None:
    ours, _ = connections
    with pytest.raises(asyncpg.DataError):
        await ours.fetchval(f"SELECT ($1::{type_name}[])::text", values)
    assert await ours.fetchval("SELECT 1") == 1
