-- Reads wallets that a batch's operations do not name themselves: those of the operations they follow.
-- Parameters: $1 shard, $2 account ids (bigint[]). Rows: one for each that exists.
-- Locks: none; the cards' locks cover their accounts.
SELECT account_id, posted_minor, held_minor, ctid
FROM accounts
WHERE account_id = ANY ($2::bigint[]) AND shard = $1::smallint
