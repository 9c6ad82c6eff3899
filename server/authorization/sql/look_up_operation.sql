-- Finds an operation of one participant, the latest where an id was used again, and what became of it.
-- Parameters: $1 shard, $2 participant; one key and NULLs for the others: $3 request id (uuid), $4 operation id (bigint),
--   $5 switch key (bytea) and $6 its business date; $7 kinds of operation. Rows: one, or none.
-- Locks: none.
SELECT o.request_id::text, o.operation_kind, o.response, o.decided_at, o.original_operation_id,
       coalesce(a.reversed_minor, 0), coalesce(a.refunded_minor, 0),
       coalesce(h.state, 0), coalesce(h.held_minor, 0), coalesce(h.captured_minor, 0)
FROM operations AS o
LEFT JOIN adjustments AS a ON a.operation_id = o.operation_id AND a.shard = o.shard
LEFT JOIN holds AS h ON h.hold_id = o.operation_id AND h.shard = o.shard
WHERE o.shard = $1::smallint AND o.participant_id = $2::text AND o.operation_kind = ANY ($7::smallint[])
      AND ($3::uuid IS NULL OR o.request_id = $3::uuid)
      AND ($4::bigint IS NULL OR o.operation_id = $4::bigint)
      AND ($5::bytea IS NULL OR (o.switch_key = $5::bytea AND o.business_date = $6::date))
ORDER BY o.business_date DESC, o.decided_at DESC
LIMIT 1
