-- Reads the accounts of locked cards, and the database's time after the locks were taken.
-- Parameters: $1 account ids (bigint[]), $2 shard. Rows: one for each account; one with NULLs when there is none.
-- Locks: none; the cards' locks cover their accounts.
SELECT clock.now, a.account_id, a.posted_minor, a.held_minor
FROM (SELECT clock_timestamp() AS now) AS clock
LEFT JOIN accounts AS a ON a.account_id = ANY ($1::bigint[]) AND a.shard = $2::smallint
