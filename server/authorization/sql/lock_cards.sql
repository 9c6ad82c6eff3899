-- Locks cards, as a batch does.
-- Parameters: $1 shard, $2 card ids (bigint[]). Rows: one for each that exists.
-- Locks: card_states, in ascending card id.
SELECT card_id
FROM card_states
WHERE card_id = ANY ($2::bigint[]) AND shard = $1::smallint
ORDER BY card_id
FOR NO KEY UPDATE
