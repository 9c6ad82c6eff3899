-- Reads what moved on accounts without a row in a business date and before it: what is rolled up, and what is not yet.
-- One statement, so that watermark, positions and the batches behind it are of one snapshot.
-- Parameters: $1 account ids (bigint[]), $2 business date.
-- Rows: one for each account: account, opening balance, debits, credits, postings; number of the last event; whether the
--   date is closed.
-- Locks: none.
WITH later AS MATERIALIZED (
    SELECT p.account_id, b.business_date, p.debit_minor, p.credit_minor, p.posting_count
    FROM event_batches AS b
    CROSS JOIN LATERAL (
        SELECT side.account_id, sum(side.debit_minor) AS debit_minor, sum(side.credit_minor) AS credit_minor,
               count(*) AS posting_count
        FROM postings AS p
        CROSS JOIN LATERAL (
            VALUES (p.debit_account_id, p.amount_minor, 0::bigint), (p.credit_account_id, 0::bigint, p.amount_minor)
        ) AS side (account_id, debit_minor, credit_minor)
        WHERE p.operation_id BETWEEN b.first_operation_id AND b.last_operation_id AND p.shard = b.shard
              AND p.business_date = b.business_date AND side.account_id = ANY ($1::bigint[])
        GROUP BY side.account_id
    ) AS p
    WHERE b.sequence > (SELECT through_sequence FROM position_watermark) AND b.business_date <= $2::date
), moved AS (
    SELECT account_id, business_date, debit_minor, credit_minor, posting_count
    FROM settlement_positions
    WHERE account_id = ANY ($1::bigint[]) AND business_date <= $2::date
    UNION ALL
    SELECT account_id, business_date, debit_minor, credit_minor, posting_count FROM later
)
SELECT a.account_id,
       coalesce(sum(m.credit_minor - m.debit_minor) FILTER (WHERE m.business_date < $2::date), 0)::bigint AS opening_minor,
       coalesce(sum(m.debit_minor) FILTER (WHERE m.business_date = $2::date), 0)::bigint AS debit_minor,
       coalesce(sum(m.credit_minor) FILTER (WHERE m.business_date = $2::date), 0)::bigint AS credit_minor,
       coalesce(sum(m.posting_count) FILTER (WHERE m.business_date = $2::date), 0)::bigint AS posting_count,
       (SELECT last_sequence FROM event_head) AS through_sequence,
       EXISTS (SELECT FROM settlement_days WHERE business_date = $2::date AND closed_at IS NOT NULL) AS is_closed
FROM unnest($1::bigint[]) AS a (account_id)
LEFT JOIN moved AS m ON m.account_id = a.account_id
GROUP BY a.account_id
ORDER BY a.account_id
