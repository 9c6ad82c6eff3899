-- Finds an operation of one participant, and what became of it.
-- Parameters: $1 shard, $2 participant; one key and NULLs for the others: $3 request id (uuid), $4 operation id (bigint),
--   $5-$8 switch key: terminal, STAN, MTI class, business date. Rows: one, or none.
-- Locks: none.
SELECT o.request_id::text, o.operation_kind, o.response, o.decided_at, o.original_operation_id,
       coalesce(a.reversed_minor, 0), coalesce(a.refunded_minor, 0),
       coalesce(h.state, 0), coalesce(h.held_minor, 0), coalesce(h.captured_minor, 0)
FROM operations AS o
LEFT JOIN adjustments AS a ON a.operation_id = o.operation_id AND a.shard = o.shard
LEFT JOIN holds AS h ON h.hold_id = o.operation_id AND h.shard = o.shard
WHERE o.shard = $1::smallint AND o.participant_id = $2::text AND o.operation_kind = ANY ($9::smallint[])
      AND ($3::uuid IS NULL OR o.request_id = $3::uuid)
      AND ($4::bigint IS NULL OR o.operation_id = $4::bigint)
      AND ($5::text IS NULL
           OR (o.terminal_id = $5::text AND o.stan = $6::integer AND o.mti_class = $7::smallint
               AND o.business_date = $8::date))
LIMIT 1
