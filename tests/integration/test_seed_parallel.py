"""Cards loaded by several processes are the cards that one would have loaded, and the schema is as it was."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from crypto.key_store.software import SoftwareKeyStore
from server.cards import seed_parallel
from server.cards.directory import CredentialKind
from server.cards.seed import CARDS_PER_COPY, STATEMENTS, seed_cards
from server.cards.seed_parallel import seed_cards_in_parallel
from server.cards.synthetic import synthetic_pan
from server.database.migrate import migrate
from server.settlement.reconcile import reconcile

BALANCE_MINOR = 500
SHARDS = 4


@pytest_asyncio.fixture
async def database(empty_database: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(empty_database)
    await migrate(connection)
    yield connection
    await connection.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("index_last_from", [1, 10**9])
async def test_cards_loaded_in_parallel_lie_in_their_shards_and_agree_with_the_books(
    empty_database: str,
    database: "asyncpg.Connection[Any]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    index_last_from: int,
) -> None:
    monkeypatch.setattr(seed_parallel, "INDEX_LAST_CARDS_MIN", index_last_from)
    store = SoftwareKeyStore.create(tmp_path / "keys")
    constraints = await database.fetch(STATEMENTS["seed_constraints"])
    assert constraints
    first, count = 7, CARDS_PER_COPY + 100

    def load() -> None:
        seed_cards_in_parallel(
            empty_database,
            tmp_path / "keys",
            first=first,
            count=count,
            opening_balance_minor=BALANCE_MINOR,
            processes=2,
            shards=SHARDS,
        )

    await asyncio.to_thread(load)
    assert await database.fetch(STATEMENTS["seed_constraints"]) == constraints
    proof = await reconcile(empty_database)
    assert proof.clean
    assert proof.wallets == count
    assert proof.wallets_minor == count * BALANCE_MINOR
    blind_index = store.blind_index(store.active("blind-index"))
    for n in (first, first + count - 1):
        index = blind_index.of(synthetic_pan(n), kind=CredentialKind.PAN)
        shards = await database.fetchrow(
            "SELECT c.shard, s.shard, a.shard, h.shard, r.shard FROM card_credentials AS r"
            " JOIN cards AS c USING (card_id) JOIN card_states AS s USING (card_id) JOIN accounts AS a USING (card_id)"
            " JOIN cardholders AS h USING (cardholder_id) WHERE credential_index = $1",
            index,
        )
        assert set(shards) == {int.from_bytes(index[:4]) % SHARDS}
    of_shards = await database.fetch("SELECT count(*) FROM card_states GROUP BY shard")
    assert len(of_shards) == SHARDS
    assert min(size for (size,) in of_shards) > count // SHARDS * 0.8


@pytest.mark.timeout(60)
async def test_a_card_that_is_there_already_is_refused_by_name(
    empty_database: str, database: "asyncpg.Connection[Any]", tmp_path: Path
) -> None:
    store = SoftwareKeyStore.create(tmp_path / "keys")
    await seed_cards(database, store, count=3, opening_balance_minor=BALANCE_MINOR)
    with pytest.raises(asyncpg.UniqueViolationError):
        await asyncio.to_thread(
            seed_cards_in_parallel,
            empty_database,
            tmp_path / "keys",
            first=2,
            count=2,
            opening_balance_minor=BALANCE_MINOR,
            processes=1,
        )
