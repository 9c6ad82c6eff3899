-- Finds cards with holds whose time has ended.
-- Parameters: $1 the most to find. Rows: up to that many pairs of shard and card, ascending. Locks: none.
SELECT DISTINCT shard, card_id
FROM holds
WHERE state = 1 AND expires_at <= statement_timestamp()
ORDER BY shard, card_id
LIMIT $1::integer
