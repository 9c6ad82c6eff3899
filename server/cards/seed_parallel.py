"""Loads millions of synthetic cards: the steps of ``seed`` in several processes, indexes and statistics last.

For load tests and benchmarks, on a core that nobody uses yet: while it runs, the credentials are not unique.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import asyncpg

from crypto.key_store.software import SoftwareKeyStore
from server.cards.directory import CardCipher
from server.cards.seed import (
    COLUMNS,
    STATEMENTS,
    Seed,
    copies,
    copy_cards,
    half_empty_pages,
    open_source_account,
)
from server.database import pool

APPLICATION_NAME = "onecard seed"
# Credentials come in no order: from some hundred thousand cards on, their index is built behind them in a third of the
# time that keeping it costs. Below, taking it away is not worth a lock.
INDEX_LAST_CARDS_MIN = 200_000
INDEX_MEMORY = "1GB"


def seed_cards_in_parallel(
    dsn: str,
    keys_dir: Path,
    *,
    count: int,
    opening_balance_minor: int,
    processes: int,
    first: int = 0,
    cipher: CardCipher = CardCipher.SM4,
    shards: int = 1,
) -> None:
    """Writes synthetic cards ``first`` to ``first + count - 1``, in use.

    Args:
        dsn: the core's database, as the owner of its tables.
        keys_dir: the core's software key store.
        opening_balance_minor: what each wallet holds, in 分; at least 1.
        processes: how many derive rows at once; each also keeps a process of PostgreSQL busy.
        shards: of the core; each card lies where its PAN's blind index says.
    Raises:
        asyncpg.UniqueViolationError: one of them was loaded before.
    """
    asyncio.run(
        _seed(
            dsn,
            keys_dir,
            numbers=range(first, first + count),
            processes=processes,
            opening_balance_minor=opening_balance_minor,
            cipher=cipher,
            shards=shards,
        )
    )


async def _seed(
    dsn: str,
    keys_dir: Path,
    *,
    numbers: range,
    processes: int,
    opening_balance_minor: int,
    cipher: CardCipher,
    shards: int,
) -> None:
    connection = await pool.connect(dsn, application_name=APPLICATION_NAME)
    try:
        seed = Seed(
            opening_balance_minor=opening_balance_minor,
            source_account_id=await open_source_account(connection),
            cipher=cipher,
            shards=shards,
        )
        async with half_empty_pages(connection):
            if len(numbers) < INDEX_LAST_CARDS_MIN:
                await asyncio.to_thread(_copy_all, dsn, keys_dir, seed, numbers, processes)
            else:
                async with _credentials_indexed_last(connection):
                    await asyncio.to_thread(_copy_all, dsn, keys_dir, seed, numbers, processes)
        for table in COLUMNS:
            # Not ANALYZE alone: autovacuum would visit all the new rows while something is measured.
            await connection.execute(f"VACUUM ANALYZE {table}")
    finally:
        await connection.close()


@asynccontextmanager
async def _credentials_indexed_last(connection: "asyncpg.Connection[Any]") -> AsyncIterator[None]:
    """Takes the credentials' unique constraints away, and builds them again behind the rows.

    Raises:
        asyncpg.UniqueViolationError: at the end, when a credential is there twice.
    """
    constraints = await connection.fetch(STATEMENTS["seed_constraints"])
    for name, _ in constraints:
        await connection.execute(f"ALTER TABLE card_credentials DROP CONSTRAINT {name}")
    try:
        yield
    finally:
        await connection.execute(f"SET maintenance_work_mem = '{INDEX_MEMORY}'")
        for name, definition in constraints:
            await connection.execute(f"ALTER TABLE card_credentials ADD CONSTRAINT {name} {definition}")


def _copy_all(dsn: str, keys_dir: Path, seed: Seed, numbers: range, processes: int) -> None:
    pieces = list(copies(numbers.start, len(numbers)))
    # Spawned, not forked: the caller may have threads.
    workers = ProcessPoolExecutor(
        min(processes, len(pieces)), get_context("spawn"), _open_loader, initargs=(dsn, keys_dir, seed)
    )
    with workers:
        # Read to the end, so that the first error of any piece is raised here.
        for _ in workers.map(_copy_piece, pieces):
            pass


@dataclass(frozen=True, kw_only=True)
class _Loader:
    """What one process keeps from piece to piece."""

    runner: asyncio.Runner
    connection: "asyncpg.Connection[Any]"
    key_store: SoftwareKeyStore
    seed: Seed


_loader: _Loader | None = None


def _open_loader(dsn: str, keys_dir: Path, seed: Seed) -> None:
    global _loader
    # Rows are free of cycles, and there are a hundred thousand tuples of them at a time: a tenth of the CPU went into
    # looking through them for garbage.
    gc.disable()
    runner = asyncio.Runner()
    _loader = _Loader(
        runner=runner,
        # Ends with its process: the server then finds the session closed.
        connection=runner.run(pool.connect(dsn, application_name=APPLICATION_NAME)),
        key_store=SoftwareKeyStore.open(keys_dir),
        seed=seed,
    )


def _copy_piece(numbers: range) -> None:
    assert _loader is not None, "the pool was started with it"
    _loader.runner.run(copy_cards(_loader.connection, _loader.key_store, _loader.seed, numbers))
