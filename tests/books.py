"""What must be true of the books at any moment, asked of the rows alone."""

from core_under_test import Core

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
