-- Lists a participant's closings, the latest first.
-- Parameters: $1 participant, $2 before this business date, $3 rows at most.
-- Rows: one for each closing. Locks: none.
SELECT business_date, operation_count, manifest_sha256, made_at
FROM closings
WHERE participant_id = $1 AND business_date < $2::date
ORDER BY business_date DESC
LIMIT $3::integer
