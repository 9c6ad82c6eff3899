"""What must be true of the books at any moment, asked of the rows alone."""

from core_under_test import Core
from onecard.v1.authorization_pb2 import AuthorizeRequest, HoldState
from virtual_card import VirtualCard

# Each gives the rows that break a rule.
RULES: dict[str, str] = {
    "a wallet holds the sum of its postings": """
        SELECT a.account_id, a.posted_minor, sum(coalesce(m.amount_minor, 0))
        FROM accounts AS a
        LEFT JOIN (SELECT credit_account_id AS account_id, amount_minor FROM postings
                   UNION ALL SELECT debit_account_id, -amount_minor FROM postings) AS m USING (account_id)
        GROUP BY a.account_id, a.posted_minor
        HAVING a.posted_minor <> sum(coalesce(m.amount_minor, 0))""",
    "a posting is between accounts that exist": """
        SELECT p.operation_id FROM postings AS p, LATERAL (VALUES (debit_account_id), (credit_account_id)) AS s (id)
        WHERE s.id >= 1000000 AND NOT EXISTS (SELECT FROM accounts AS a WHERE a.account_id = s.id)""",
    "what a wallet holds back is the sum of its pending holds": """
        SELECT a.account_id, a.held_minor, sum(coalesce(h.held_minor, 0))
        FROM accounts AS a LEFT JOIN holds AS h ON h.account_id = a.account_id
        GROUP BY a.account_id, a.held_minor
        HAVING a.held_minor <> sum(coalesce(h.held_minor, 0))""",
    "all accounts together hold nothing": """
        SELECT 1
        WHERE (SELECT coalesce(sum(posted_minor), 0) FROM accounts)
              + (SELECT coalesce(sum(amount_minor), 0) FROM postings WHERE credit_account_id < 1000000)
              - (SELECT coalesce(sum(amount_minor), 0) FROM postings WHERE debit_account_id < 1000000) <> 0""",
    "a posting has the business date of its operation": """
        SELECT p.operation_id FROM postings AS p
        WHERE NOT EXISTS (SELECT FROM operations AS o
                          WHERE o.operation_id = p.operation_id AND o.business_date = p.business_date)""",
    "postings are of approved operations": """
        SELECT p.operation_id FROM postings AS p JOIN operations AS o USING (operation_id)
        WHERE o.response_code NOT IN ('00', '10')""",
    # A pre-authorization and an increment hold, a void or a reversal of them releases, an inquiry tells.
    "an approved operation posts what it approved, or nothing": """
        SELECT o.operation_id, o.operation_kind, o.approved_minor, sum(p.amount_minor)
        FROM operations AS o JOIN postings AS p USING (operation_id)
        WHERE o.approved_minor IS NOT NULL AND o.operation_kind <> 12
        GROUP BY o.operation_id, o.operation_kind, o.approved_minor
        HAVING sum(p.amount_minor) <> o.approved_minor""",
    "money that was taken or given has a posting": """
        SELECT o.operation_id, o.operation_kind FROM operations AS o
        WHERE o.operation_kind IN (1, 2, 4, 5, 6, 9, 11, 13) AND o.approved_minor > 0
              AND NOT EXISTS (SELECT FROM postings AS p WHERE p.operation_id = o.operation_id)""",
    "a request id has one outcome": """
        SELECT request_id FROM operations GROUP BY request_id HAVING count(*) > 1""",
}


async def broken_rules(core: Core) -> dict[str, list[tuple[object, ...]]]:
    """The rules that rows break, with a few of those rows; empty when the books are right."""
    found = {name: await core.database.fetch(f"{query} LIMIT 5") for name, query in RULES.items()}
    return {name: [tuple(row) for row in rows] for name, rows in found.items() if rows}


async def wallet_of(core: Core, card: VirtualCard, wallet: int = 1) -> tuple[int, int]:
    """Posted and held money of a wallet in 分; nothing for one that was never used."""
    row = await core.database.fetchrow(
        "SELECT posted_minor, held_minor FROM accounts WHERE card_id = $1 AND wallet = $2",
        await core.card_id(card),
        wallet,
    )
    return (row[0], row[1]) if row is not None else (0, 0)


async def hold_of(core: Core, request: AuthorizeRequest) -> tuple[str, int, int]:
    """State, held and captured amount of the hold of a pre-authorization."""
    row = await core.database.fetchrow(
        "SELECT h.state, h.held_minor, h.captured_minor FROM holds AS h JOIN operations AS o"
        " ON o.operation_id = h.hold_id WHERE o.request_id = $1",
        request.request_id,
    )
    return HoldState.Name(row[0]).removeprefix("HOLD_STATE_"), row[1], row[2]


async def end_time_of_hold(core: Core, request: AuthorizeRequest) -> None:
    """Lets the time of a hold be over, before anything sweeps it."""
    await core.database.execute(
        "UPDATE holds SET expires_at = now() - interval '1 second' WHERE hold_id ="
        " (SELECT operation_id FROM operations WHERE request_id = $1)",
        request.request_id,
    )


async def postings_of(core: Core, request: AuthorizeRequest) -> list[tuple[str, str, int]]:
    """Debited and credited account, by what they are to the participant or the card, and the amount."""
    rows = await core.database.fetch(
        "SELECT p.debit_account_id, p.credit_account_id, p.amount_minor FROM postings AS p JOIN operations AS o"
        " USING (operation_id) WHERE o.request_id = $1 ORDER BY p.posting_number",
        request.request_id,
    )
    return [(_account_name(row[0]), _account_name(row[1]), row[2]) for row in rows]


async def flags_of(core: Core, request: AuthorizeRequest) -> int | None:
    return await core.database.fetchval(
        "SELECT flags FROM operations WHERE request_id = $1", request.request_id
    )


def _account_name(account_id: int) -> str:
    """``wallet-n``, or which of a participant's accounts without rows."""
    if account_id >= 1_000_000:
        return f"wallet-{1 + account_id // 10**12}"
    return "settlement" if account_id < 300_000 else "suspense" if account_id < 700_000 else "fund"
