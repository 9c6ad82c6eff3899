-- Checks a range of batches of online dates: each holds as many operations as it says.
-- Parameters: $1 first operation id of the first batch, $2 that of the next range, $3 online business dates (date[]).
-- Rows: one: operations found in batches, batches that are wrong. Locks: none.
SELECT coalesce(sum(o.found), 0)::bigint AS operations,
       count(*) FILTER (WHERE o.found <> b.operation_count) AS batches_wrong
FROM event_batches AS b
CROSS JOIN LATERAL (
    SELECT count(*) AS found
    FROM operations AS o
    WHERE o.operation_id BETWEEN b.first_operation_id AND b.last_operation_id AND o.shard = b.shard
          AND o.business_date = b.business_date
) AS o
WHERE b.first_operation_id >= $1::bigint AND b.first_operation_id < $2::bigint AND b.business_date = ANY ($3::date[])
