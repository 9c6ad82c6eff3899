"""Proof that the money is right, from the rows alone: each sum twice, by balances and by postings.

Runs in one read-only snapshot beside live traffic; the database aggregates, so memory stays bounded.
"""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from server.database.pool import connect
from server.database.statements import load

STATEMENTS = load("server.settlement")
STATEMENT_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What the rows say; every ``*_wrong`` number and ``sum_minor`` must be zero."""

    wallets: int
    postings: int
    operations: int
    wallets_minor: int
    settlement_minor: int
    wallets_wrong: int
    approved_without_posting: int
    declined_with_posting: int
    postings_without_operation: int
    repeated_requests: int

    @property
    def sum_minor(self) -> int:
        """Sum of all balances."""
        return self.wallets_minor + self.settlement_minor

    @property
    def clean(self) -> bool:
        return not (
            self.sum_minor
            or self.wallets_wrong
            or self.approved_without_posting
            or self.declined_with_posting
            or self.postings_without_operation
            or self.repeated_requests
        )


async def reconcile(dsn: str) -> Reconciliation:
    """Reads the proof.

    Raises:
        ConfigurationError: the database cannot be reached.
    """
    connection = await connect(dsn, application_name="onecard reconcile", command_timeout=STATEMENT_TIMEOUT_S)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            totals = await connection.fetchrow(STATEMENTS["totals"])
            wallets_wrong = await connection.fetchval(STATEMENTS["wrong_wallets"])
            operations = await connection.fetchrow(STATEMENTS["wrong_operations"])
            repeated = await connection.fetchval(STATEMENTS["repeated_requests"])
    finally:
        await connection.close()
    assert totals is not None, "one row"
    assert operations is not None, "one row"
    return Reconciliation(
        wallets=totals["wallets"],
        postings=totals["postings"],
        operations=totals["operations"],
        wallets_minor=totals["wallets_minor"],
        settlement_minor=totals["settlement_minor"],
        wallets_wrong=wallets_wrong,
        approved_without_posting=operations["approved_without_posting"],
        declined_with_posting=operations["declined_with_posting"],
        postings_without_operation=operations["postings_without_operation"],
        repeated_requests=repeated,
    )


async def run(dsn: str) -> bool:
    """Prints the proof; True when everything agrees."""
    result = await reconcile(dsn)
    table = Table(title="reconcile", show_header=False)
    table.add_row("wallets", f"{result.wallets:,}")
    table.add_row("operations", f"{result.operations:,}")
    table.add_row("postings", f"{result.postings:,}")
    table.add_row("money in wallets", f"{result.wallets_minor:,} 分")
    table.add_row("money of settlement accounts", f"{result.settlement_minor:,} 分")
    table.add_row("sum of all balances", f"{result.sum_minor:,} 分")
    table.add_row("wallets that differ from their postings", f"{result.wallets_wrong:,}")
    table.add_row("approved operations without their posting", f"{result.approved_without_posting:,}")
    table.add_row("declined operations with a posting", f"{result.declined_with_posting:,}")
    table.add_row("postings without an operation", f"{result.postings_without_operation:,}")
    table.add_row("request ids with two outcomes", f"{result.repeated_requests:,}")
    table.add_row("verdict", "clean" if result.clean else "NOT CLEAN")
    Console().print(table)
    return result.clean
