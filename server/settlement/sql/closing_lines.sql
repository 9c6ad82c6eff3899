-- Writes a participant's operations of a closed date in order of their events, each with what it moved on the
-- participant's own accounts. For COPY, so every value has one text form.
-- Parameters: $1 business date, $2 participant, $3 its settlement account, $4 whether only exceptions: parked reversals
--   and forced posts.
-- Rows: one for each operation but the places that reversals keep.
-- Locks: none.
SELECT e.sequence, lpad((e.operation_id % 1000000000000)::text, 12, '0') AS rrn, e.request_id, e.operation_kind,
       coalesce(e.response_code, '') AS response_code, e.reason, e.amount_minor,
       coalesce(e.approved_minor,
                CASE WHEN e.operation_kind IN (1, 2, 3) AND e.response_code IN ('00', '10') THEN e.amount_minor END
       ) AS approved_minor,
       to_char(e.decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS decided_at,
       lpad((e.original_operation_id % 1000000000000)::text, 12, '0') AS original_rrn,
       e.terminal_id, coalesce(e.merchant_id, '') AS merchant_id, e.stan, e.mti_class, e.channel,
       coalesce(e.flags, 0) AS flags,
       coalesce(m.settlement_minor, 0) AS settlement_change_minor, coalesce(m.suspense_minor, 0) AS suspense_change_minor,
       coalesce(m.fund_minor, 0) AS fund_change_minor
FROM settlement_days AS d
CROSS JOIN LATERAL (
    SELECT n.*
    FROM event_batches AS b
    CROSS JOIN LATERAL (
        SELECT b.sequence + row_number() OVER (ORDER BY o.operation_id) - 1 AS sequence, o.*
        FROM operations AS o
        WHERE o.operation_id BETWEEN b.first_operation_id AND b.last_operation_id AND o.shard = b.shard
              AND o.business_date = b.business_date
    ) AS n
    WHERE b.sequence BETWEEN d.first_sequence AND d.last_sequence AND b.business_date = d.business_date
) AS e
LEFT JOIN LATERAL (
    SELECT sum(side.amount_minor) FILTER (WHERE side.account_id = $3::bigint) AS settlement_minor,
           sum(side.amount_minor) FILTER (WHERE side.account_id = 400000 + $3::bigint) AS suspense_minor,
           sum(side.amount_minor) FILTER (WHERE side.account_id = 700000 + $3::bigint) AS fund_minor
    FROM postings AS p
    CROSS JOIN LATERAL (
        VALUES (p.debit_account_id, -p.amount_minor), (p.credit_account_id, p.amount_minor)
    ) AS side (account_id, amount_minor)
    WHERE p.operation_id = e.operation_id AND p.shard = e.shard AND p.business_date = e.business_date
) AS m ON true
WHERE d.business_date = $1::date AND e.participant_id = $2::text AND e.operation_kind <> 15
      AND (NOT $4::boolean OR (e.operation_kind = 12 AND e.reason = 17) OR coalesce(e.flags, 0) & 2 <> 0)
ORDER BY e.sequence
