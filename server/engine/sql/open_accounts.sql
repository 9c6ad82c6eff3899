-- Makes wallets that are used for the first time.
-- Parameters: $1 shard; $2-$5 one array each of account ids, card ids, money posted and held (bigint[]). Rows: none.
-- Locks: none beyond the card locks that the batch holds; two makers of one wallet hold the same card's lock in turn.
INSERT INTO accounts (account_id, card_id, wallet, posted_minor, held_minor, shard)
SELECT n.account_id, n.card_id, 1 + n.account_id / 1000000000000, n.posted_minor, n.held_minor, $1::smallint
FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n (account_id, card_id, posted_minor, held_minor)
