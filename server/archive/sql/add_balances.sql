-- Adds the net postings of a business date to what archived postings come to, or takes them out of it.
-- Parameters: $1 business date, $2 1 to add, -1 to take out. Rows: none. Locks: the rows of the accounts; the archive's
--   advisory lock keeps others away.
INSERT INTO archived_balances AS a (account_id, shard, amount_minor)
SELECT account_id, shard, sum(amount_minor)::bigint * $2::integer
FROM (
    SELECT credit_account_id AS account_id, shard, amount_minor FROM postings WHERE business_date = $1::date
    UNION ALL
    SELECT debit_account_id, shard, -amount_minor FROM postings WHERE business_date = $1::date
) AS sides
GROUP BY account_id, shard
ON CONFLICT ON CONSTRAINT archived_balances_pkey
DO UPDATE SET amount_minor = a.amount_minor + excluded.amount_minor
