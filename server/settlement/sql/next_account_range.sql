-- Finds where a range of wallets ends.
-- Parameters: $1 first account id, $2 accounts in a range. Rows: one, or none at the last range: the next first account.
-- Locks: none.
SELECT account_id FROM accounts WHERE account_id >= $1::bigint ORDER BY account_id OFFSET $2::bigint LIMIT 1
