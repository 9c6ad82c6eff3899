-- Makes wallets that are used for the first time, in the middle of a batch that changes them.
-- Parameters: $1 shard, $2 account ids (bigint[]), $3 card ids (bigint[]). Rows: none.
-- Locks: none beyond the card locks that the batch holds; two makers of one wallet hold the same card's lock in turn.
INSERT INTO accounts (account_id, card_id, wallet, shard)
SELECT n.account_id, n.card_id, 1 + n.account_id / 1000000000000, $1::smallint
FROM unnest($2::bigint[], $3::bigint[]) AS n (account_id, card_id)
