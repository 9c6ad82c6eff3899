"""The proof of the books finds what no sum shows."""

from dataclasses import replace

from engine_bench import FIRST_ACCOUNT, Bench, trial

from server.settlement.reconcile import reconcile


async def test_approved_operation_with_two_postings_is_found(bench: Bench) -> None:
    operation = trial(1)
    await bench.engine().submit([operation, trial(2)])
    books = await reconcile(bench.dsn)
    assert books.clean
    # The same movement again, wallet included: every balance agrees with its postings.
    inserted = await bench.database.execute(
        "INSERT INTO postings (operation_id, debit_account_id, credit_account_id, amount_minor, business_date,"
        " posting_number, shard) SELECT p.operation_id, debit_account_id, credit_account_id, p.amount_minor,"
        " p.business_date, posting_number + 1, p.shard FROM postings AS p JOIN operations USING (operation_id)"
        " WHERE request_id = $1",
        operation.request_id,
    )
    assert inserted == "INSERT 0 1"
    await bench.database.execute(
        "UPDATE accounts SET posted_minor = posted_minor + 10 WHERE account_id = $1", FIRST_ACCOUNT + 1
    )
    try:
        found = await reconcile(bench.dsn)
    finally:
        # The bench ends with books that agree.
        await bench.empty()
    assert not found.clean
    assert found == replace(
        books,
        postings=books.postings + 1,
        wallets_minor=books.wallets_minor + 10,
        settlement_minor=books.settlement_minor - 10,
        approved_without_posting=1,
    )
