-- Counts wallets whose balance is not the sum of their postings.
-- Parameters: none. Rows: one: the count. Locks: none.
WITH moved AS (
    SELECT account_id, sum(amount_minor) AS amount_minor
    FROM (
        SELECT credit_account_id AS account_id, amount_minor FROM postings
        UNION ALL
        SELECT debit_account_id, -amount_minor FROM postings
    ) AS sides
    WHERE account_id >= 1000000
    GROUP BY account_id
)
SELECT count(*)
FROM accounts AS a
FULL JOIN moved AS m ON m.account_id = a.account_id
WHERE coalesce(a.posted_minor, 0) <> coalesce(m.amount_minor, 0) OR a.account_id IS NULL
