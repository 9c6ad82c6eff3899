-- Reads holds.
-- Parameters: $1 shard, $2 hold ids (bigint[]). Rows: one for each that exists.
-- Locks: none; the cards' locks cover their holds.
SELECT hold_id, card_id, account_id, state, authorized_minor, held_minor, captured_minor, expires_at
FROM holds
WHERE hold_id = ANY ($2::bigint[]) AND shard = $1::smallint
