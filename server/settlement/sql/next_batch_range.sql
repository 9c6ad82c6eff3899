-- Finds where a range of batches ends.
-- Parameters: $1 first operation id of the first batch, $2 batches in a range.
-- Rows: one, or none at the last range: the next one's. Locks: none.
SELECT first_operation_id
FROM event_batches
WHERE first_operation_id >= $1::bigint
ORDER BY first_operation_id
OFFSET $2::bigint
LIMIT 1
