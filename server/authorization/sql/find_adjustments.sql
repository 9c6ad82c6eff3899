-- Reads how much of operations was taken back.
-- Parameters: $1 shard, $2 operation ids (bigint[]). Rows: one for each of which anything ever was.
-- Locks: none; the cards' locks cover their operations' adjustments.
SELECT operation_id, reversed_minor, refunded_minor
FROM adjustments
WHERE operation_id = ANY ($2::bigint[]) AND shard = $1::smallint
