-- Adds up a participant's operations of a business date.
-- Parameters: $1 business date, $2 participant.
-- Rows: one for each kind and response code, ascending: kind, response code (empty for none), count, amounts, approved.
-- Locks: none.
SELECT operation_kind, coalesce(response_code, '') AS response_code, count(*) AS operation_count,
       coalesce(sum(amount_minor), 0)::bigint AS amount_minor,
       coalesce(sum(coalesce(approved_minor, CASE WHEN operation_kind IN (1, 2, 3) AND response_code IN ('00', '10')
                                                  THEN amount_minor END)), 0)::bigint AS approved_minor
FROM operations
WHERE business_date = $1::date AND participant_id = $2 AND operation_kind <> 15
GROUP BY 1, 2
ORDER BY 1, 2
