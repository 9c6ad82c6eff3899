-- Checks a range of wallets: posted is the sum of postings, those of archived dates included; held is the sum of pending
-- holds; nothing is negative.
-- Parameters: $1 first account id, $2 the next range's first account id.
-- Rows: one: wallets, their posted money, wrong by postings, wrong by holds, negative. Locks: none.
WITH moved AS (
    SELECT account_id, sum(amount_minor) AS amount_minor
    FROM (
        SELECT credit_account_id AS account_id, amount_minor
        FROM postings WHERE credit_account_id >= $1::bigint AND credit_account_id < $2::bigint
        UNION ALL
        SELECT debit_account_id, -amount_minor
        FROM postings WHERE debit_account_id >= $1::bigint AND debit_account_id < $2::bigint
        UNION ALL
        SELECT account_id, amount_minor
        FROM archived_balances WHERE account_id >= $1::bigint AND account_id < $2::bigint
    ) AS sides
    GROUP BY account_id
), held AS (
    SELECT account_id, sum(held_minor) AS held_minor
    FROM holds
    WHERE state = 1 AND account_id >= $1::bigint AND account_id < $2::bigint
    GROUP BY account_id
)
SELECT count(a.account_id) AS wallets, coalesce(sum(a.posted_minor), 0)::bigint AS wallets_minor,
       count(*) FILTER (
           WHERE coalesce(a.posted_minor, 0) <> coalesce(m.amount_minor, 0) OR a.account_id IS NULL
       ) AS wallets_wrong,
       count(*) FILTER (WHERE coalesce(a.held_minor, 0) <> coalesce(h.held_minor, 0)) AS holds_wrong,
       count(*) FILTER (
           WHERE a.posted_minor < 0 OR a.held_minor < 0 OR a.posted_minor < a.held_minor
       ) AS wallets_negative
FROM (
    SELECT account_id, posted_minor, held_minor
    FROM accounts WHERE account_id >= $1::bigint AND account_id < $2::bigint
) AS a
FULL JOIN moved AS m ON m.account_id = a.account_id
FULL JOIN held AS h ON h.account_id = coalesce(a.account_id, m.account_id)
