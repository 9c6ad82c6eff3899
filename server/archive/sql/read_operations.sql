-- Reads the operations of a business date in canonical form: times in microseconds and dates in days since 1970.
-- Parameters: $1 business date. Rows: one for each, in ascending id. Locks: none.
SELECT operation_id, request_id::text AS request_id, card_id, amount_minor, terminal_time_unix_ms,
       (extract(EPOCH FROM decided_at) * 1000000)::bigint AS decided_at,
       business_date - date '1970-01-01' AS business_date, stan, shard, operation_kind, mti_class, reason,
       participant_id, terminal_id, merchant_id, response_code, switch_key, request_digest, response, account_id, approved_minor,
       original_operation_id, channel, flags
FROM operations
WHERE business_date = $1::date
ORDER BY operation_id, shard
