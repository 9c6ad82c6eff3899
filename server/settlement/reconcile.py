"""Proof that the money is right, from the rows alone: each sum twice, by balances and by postings.

Runs in one read-only snapshot beside live traffic, range by range; the database aggregates, so memory stays bounded.
"""

from dataclasses import dataclass, fields

from rich.console import Console
from rich.table import Table

from server.database.pool import connect
from server.settlement.reconcile_passes import Progress, check_rows

STATEMENT_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What the rows say; ``sum_minor`` and every number of what is wrong must be zero."""

    wallets: int
    postings: int
    operations: int
    wallets_minor: int
    # Of all accounts without a row: settlement, suspense, fund.
    settlement_minor: int
    wallets_wrong: int
    holds_wrong: int
    wallets_negative: int
    approved_without_posting: int
    declined_with_posting: int
    postings_without_operation: int
    postings_of_other_wallets: int
    postings_misplaced: int
    adjustments_wrong: int
    positions_wrong: int
    sequence_wrong: int
    batches_wrong: int
    operations_without_batch: int
    repeated_requests: int

    @property
    def sum_minor(self) -> int:
        """Sum of all balances."""
        return self.wallets_minor + self.settlement_minor

    @property
    def clean(self) -> bool:
        return not (self.sum_minor or any(getattr(self, name) for name in WRONG))


# What must be zero, in words.
WRONG = {
    "wallets_wrong": "wallets that differ from their postings",
    "holds_wrong": "wallets that differ from their holds",
    "wallets_negative": "wallets below zero",
    "approved_without_posting": "approved operations without their posting",
    "declined_with_posting": "declined operations with a posting",
    "postings_without_operation": "postings without an operation",
    "postings_of_other_wallets": "postings of another card's wallet",
    "postings_misplaced": "postings in a wrong direction, or of another participant",
    "adjustments_wrong": "operations whose reversals and refunds differ",
    "positions_wrong": "positions that differ from their postings",
    "sequence_wrong": "gaps in the numbers of events",
    "batches_wrong": "batches that differ from their operations",
    "operations_without_batch": "operations without a batch",
    "repeated_requests": "request ids with two outcomes",
}


async def reconcile(dsn: str, progress: Progress = lambda _what, _count: None) -> Reconciliation:
    """Reads the proof.

    Args:
        progress: called with what is looked at, and how many rows of it were.
    Raises:
        ConfigurationError: the database cannot be reached.
    """
    connection = await connect(dsn, application_name="onecard reconcile", command_timeout=STATEMENT_TIMEOUT_S)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            # First of all: a date that is archived after the snapshot would be gone from it.
            await connection.execute("LOCK TABLE operations, postings IN ACCESS SHARE MODE")
            facts = await check_rows(connection, progress)
    finally:
        await connection.close()
    return Reconciliation(**{field.name: int(facts[field.name]) for field in fields(Reconciliation)})


async def run(dsn: str) -> bool:
    """Prints the proof, and on a terminal how far it is; True when everything agrees."""
    with Console(stderr=True).status("reconcile") as status:
        result = await reconcile(
            dsn, lambda what, count: status.update(f"reconcile: {what} {count:,}" if count else what)
        )
    table = Table(title="reconcile", show_header=False)
    table.add_row("wallets", f"{result.wallets:,}")
    table.add_row("operations", f"{result.operations:,}")
    table.add_row("postings", f"{result.postings:,}")
    table.add_row("money in wallets", f"{result.wallets_minor:,} 分")
    table.add_row("money of participants' accounts", f"{result.settlement_minor:,} 分")
    table.add_row("sum of all balances", f"{result.sum_minor:,} 分")
    for name, words in WRONG.items():
        table.add_row(words, f"{getattr(result, name):,}")
    table.add_row("verdict", "clean" if result.clean else "NOT CLEAN")
    Console().print(table)
    return result.clean
