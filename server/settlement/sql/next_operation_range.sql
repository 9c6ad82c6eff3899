-- Finds where a range of a date's operations ends.
-- Parameters: $1 business date, $2 first operation id, $3 operations in a range.
-- Rows: one, or none at the last range: the next first operation id. Locks: none.
SELECT operation_id
FROM operations
WHERE business_date = $1::date AND operation_id >= $2::bigint
ORDER BY operation_id
OFFSET $3::bigint
LIMIT 1
