"""The proof of the books: clean on what the core writes, and each kind of planted error found by its name."""

import asyncio
from dataclasses import asdict, replace

import pytest
import pytest_asyncio
from settlement_site import PURCHASE, Move, Site

from server.database.statements import load
from server.engine.operation import OperationKind as Kind
from server.settlement import reconcile_passes
from server.settlement.positions import roll_up_step
from server.settlement.reconcile import WRONG, Reconciliation, reconcile

HOLD = "INSERT INTO holds VALUES ($1, 0, 2, 1000002, $2, 400, $3, 0, now() + interval '1 day')"


@pytest_asyncio.fixture
async def books(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Operations of every kind that moves, holds or takes back money, rolled up but for the last; in tiny ranges."""
    for name, size in (("ACCOUNTS_PER_RANGE", 7), ("OPERATIONS_PER_RANGE", 4), ("BATCHES_PER_RANGE", 2)):
        monkeypatch.setattr(reconcile_passes, name, size)
    lane = await site.lane()
    own = site.accounts["bank-01"]
    suspense, fund = 400_000 + own, 700_000 + own
    ids = await lane.write(
        [
            Move(card_id=2, amount_minor=10_000, kind=Kind.OPENING_BALANCE, approved_minor=None),
            Move(card_id=2, amount_minor=1_000, kind=PURCHASE),
            Move(card_id=2, amount_minor=500, kind=PURCHASE, response_code="51", reason=14),
            Move(card_id=2, amount_minor=400, kind=Kind.PRE_AUTHORIZATION, postings=(), held_minor=400),
            Move(card_id=2, amount_minor=70, kind=Kind.TRANSFER, postings=[(1_000_002, 1_000_004, 70)]),
            Move(card_id=4, amount_minor=30, kind=Kind.BENEFIT_CREDIT, postings=[(fund, 1_000_004, 30)]),
            Move(card_id=4, amount_minor=0, kind=Kind.BALANCE_INQUIRY, postings=()),
            Move(card_id=6, amount_minor=90, kind=Kind.COMPLETION, postings=[(suspense, own, 90)], flags=3),
        ]
    )
    await site.database.execute(HOLD, ids[3].operation_id, 1, 300)
    purchase, hold = ids[1].operation_id, ids[3].operation_id
    refund = [(own, 1_000_002, 250)]
    follow_ups = await lane.write(
        [
            Move(
                card_id=2, amount_minor=250, kind=Kind.REFUND, original_operation_id=purchase, postings=refund
            ),
            Move(
                card_id=2,
                kind=Kind.REVERSAL,
                amount_minor=100,
                original_operation_id=hold,
                postings=(),
                held_minor=-100,
            ),
            Move(card_id=2, kind=Kind.REVERSAL, amount_minor=9, reason=17, approved_minor=0, postings=()),
        ]
    )
    await lane.write(
        [
            Move(
                card_id=2,
                kind=Kind.REVERSAL,
                amount_minor=50,
                original_operation_id=follow_ups[0].operation_id,
                postings=[(1_000_002, own, 50)],
            )
        ]
    )
    await site.database.execute(
        "INSERT INTO adjustments VALUES ($1, 0, 1000, 0, 200), ($2, 0, 250, 50, 0)",
        purchase,
        follow_ups[0].operation_id,
    )
    await site.database.fetchval("SELECT sequence_events(10)")
    assert await roll_up_step(lane.connection)
    # One that is numbered and not rolled up, and one that is not numbered.
    await lane.write([Move(card_id=1, amount_minor=5)])
    await site.database.fetchval("SELECT sequence_events(10)")
    await lane.write([Move(card_id=1, amount_minor=6)])
    await site.database.execute("ALTER TABLE operations DISABLE TRIGGER USER")
    await site.database.execute("ALTER TABLE postings DISABLE TRIGGER USER")
    await site.database.execute("ALTER TABLE event_batches DISABLE TRIGGER USER")
    return site


async def test_books_of_every_kind_are_clean(books: Site) -> None:
    looked: list[str] = []
    proof = await reconcile(books.dsn, lambda what, _count: looked.append(what))
    assert proof.clean, proof
    assert (proof.wallets, proof.operations, proof.postings) == (48, 14, 9)
    assert looked.count("wallets") == 7
    assert looked.count("operations") >= 4


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("UPDATE accounts SET posted_minor = posted_minor + 1 WHERE account_id = 1000004", "wallets_wrong"),
        ("UPDATE accounts SET held_minor = 299 WHERE account_id = 1000002", "holds_wrong"),
        ("UPDATE holds SET state = 5, held_minor = 0", "holds_wrong"),
        (
            "ALTER TABLE accounts DROP CONSTRAINT accounts_available_not_negative;"
            " UPDATE accounts SET held_minor = 99999 WHERE account_id = 1000002;"
            " UPDATE holds SET held_minor = 99999",
            "wallets_negative",
        ),
        (
            "UPDATE operations SET approved_minor = 999 WHERE approved_minor = 1000",
            "approved_without_posting",
        ),
        ("UPDATE operations SET approved_minor = NULL WHERE operation_kind = 5", "approved_without_posting"),
        # The reversal of a hold is right without a posting; that of a purchase is not.
        (
            "UPDATE operations SET operation_kind = 1 WHERE operation_kind = 7; DELETE FROM holds;"
            " UPDATE accounts SET held_minor = 0",
            "approved_without_posting",
        ),
        ("UPDATE operations SET response_code = '05' WHERE operation_kind = 13", "declined_with_posting"),
        (
            "UPDATE operations SET operation_kind = 14 WHERE operation_kind = 3",
            "approved_without_posting",
        ),
        (
            "INSERT INTO postings SELECT 7, 1000002, 1000004, 1, business_date, 1, 0 FROM postings LIMIT 1",
            "postings_without_operation",
        ),
        (
            "UPDATE postings SET credit_account_id = 1000006 WHERE amount_minor = 30",
            "postings_of_other_wallets",
        ),
        # The other way round, the wallet would have given what it got.
        (
            "UPDATE postings SET debit_account_id = credit_account_id, credit_account_id = debit_account_id"
            " WHERE amount_minor = 1000",
            "postings_misplaced",
        ),
        ("UPDATE postings SET credit_account_id = 2 WHERE amount_minor = 1000", "postings_misplaced"),
        ("UPDATE postings SET debit_account_id = 700002 WHERE amount_minor = 30", "postings_misplaced"),
        ("UPDATE adjustments SET approved_minor = 1001 WHERE approved_minor = 1000", "adjustments_wrong"),
        ("UPDATE adjustments SET refunded_minor = 250 WHERE refunded_minor = 200", "adjustments_wrong"),
        ("DELETE FROM adjustments WHERE reversed_minor = 50", "adjustments_wrong"),
        ("UPDATE settlement_positions SET debit_minor = debit_minor + 1", "positions_wrong"),
        ("UPDATE position_watermark SET through_sequence = through_sequence + 1", "positions_wrong"),
        ("UPDATE event_batches SET sequence = sequence + 1 WHERE sequence = 13", "sequence_wrong"),
        ("UPDATE event_head SET last_sequence = 99", "sequence_wrong"),
        ("DELETE FROM event_batches WHERE sequence IS NULL", "operations_without_batch"),
        ("UPDATE event_batches SET operation_count = 2 WHERE sequence IS NULL", "batches_wrong"),
    ],
)
async def test_planted_error_is_found(books: Site, fault: str, found: str) -> None:
    await books.database.execute(fault)
    proof = await reconcile(books.dsn)
    assert not proof.clean
    wrong = {name for name in WRONG if getattr(proof, name)}
    assert found in wrong, wrong


async def test_request_id_with_two_outcomes_is_found(books: Site) -> None:
    await books.database.execute("ALTER TABLE operations DROP CONSTRAINT operations_request_id_key")
    await books.database.execute(
        "UPDATE operations SET request_id = (SELECT request_id FROM operations WHERE operation_kind = 7)"
        " WHERE operation_kind = 14"
    )
    assert (await reconcile(books.dsn)).repeated_requests == 1


async def test_request_id_that_is_used_again_after_the_look_back_is_no_error(books: Site) -> None:
    again = "SELECT request_id, operation_id FROM operations WHERE operation_kind = $1"
    request_id, early = await books.database.fetchrow(again, 7)
    _, late = await books.database.fetchrow(again, 14)
    await books.database.execute("ALTER TABLE operations DROP CONSTRAINT operations_request_id_key")
    await books.database.execute(
        "UPDATE operations SET request_id = $1 WHERE operation_id = $2", request_id, late
    )
    await books.database.execute(
        "UPDATE operations SET decided_at = decided_at - interval '73 hours' WHERE operation_id = $1", early
    )
    assert (await reconcile(books.dsn)).clean
    # Looked up, it is what it stands for now.
    found = await books.database.fetchrow(
        load("server.authorization")["look_up_operation"],
        *(0, "bank-01", request_id, None, None, None, [7, 14]),
    )
    assert found["operation_kind"] == 14


async def test_archived_dates_count_by_what_was_carried_over(books: Site) -> None:
    lane = await books.lane()
    clean = await reconcile(books.dsn)
    await books.database.fetchval("SELECT sequence_events(10)")
    while await roll_up_step(lane.connection):
        pass
    (date,) = await books.database.fetchrow("SELECT DISTINCT business_date FROM postings")
    sides = (
        "SELECT account_id, shard, sum(amount_minor) FROM (SELECT credit_account_id AS account_id, shard, amount_minor"
        " FROM postings UNION ALL SELECT debit_account_id, shard, -amount_minor FROM postings) AS s GROUP BY 1, 2"
    )
    await books.database.execute(f"INSERT INTO archived_balances {sides}")
    for table in ("operations", "postings"):
        await books.database.execute(f"DROP TABLE {table}_{date:%Y%m%d}")
    archived = await reconcile(books.dsn)
    assert archived.clean, archived
    kept = replace(clean, operations=0, postings=0)
    assert asdict(archived) == asdict(kept)
    await books.database.execute(
        "UPDATE archived_balances SET amount_minor = amount_minor + 1 WHERE account_id IN (1000002, 1)"
    )
    broken = await reconcile(books.dsn)
    assert (broken.wallets_wrong, broken.positions_wrong) == (1, 1)


async def test_proof_holds_beside_writers_sequencer_and_roll_up(site: Site) -> None:
    lanes = [await site.lane() for _ in range(3)]
    hand = await site.lane()
    done = asyncio.Event()

    async def write(number: int) -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            moves = [
                Move(card_id=2 + 2 * number, amount_minor=3),
                Move(card_id=2 + 2 * number, kind=PURCHASE),
            ]
            await lanes[number].write(moves, rolls_back=turn % 7 == 0)

    async def keep_up() -> None:
        while not done.is_set():
            await site.database.fetchval("SELECT sequence_events(3)")
            await roll_up_step(hand.connection)

    proofs: list[Reconciliation] = []
    work = asyncio.gather(*(write(number) for number in range(3)), keep_up())
    for _ in range(8):
        await asyncio.sleep(0.1)
        proofs.append(await reconcile(site.dsn))
    done.set()
    await work
    assert all(proof.clean for proof in proofs), proofs
    assert proofs[-1].operations > proofs[0].operations > 0
