-- Lists operations that people must look at: reversals whose original never came, and forced posts.
-- Parameters: $1 business date, $2 participant, or NULL for all, $3 rows at most.
-- Rows: one for each, by date and operation id. Locks: none.
SELECT o.business_date, o.operation_id, o.participant_id, o.operation_kind, o.reason, o.amount_minor, o.approved_minor,
       o.terminal_id, o.merchant_id, o.stan, o.decided_at, coalesce(o.flags, 0) AS flags
FROM operations AS o
WHERE o.business_date = $1::date AND ($2::text IS NULL OR o.participant_id = $2)
      AND ((o.operation_kind = 12 AND o.reason = 17) OR coalesce(o.flags, 0) & 2 <> 0)
ORDER BY o.business_date, o.operation_id
LIMIT $3::integer
