-- Adds the postings of the next batches to the positions of accounts without a row, and moves the watermark behind them:
-- each batch once, because both are in one transaction. Must be a statement of its own after `lock_watermark`, so that it
-- sees what the last holder of the turn wrote.
-- Parameters: $1 watermark, $2 batches at most. Rows: one: the new watermark.
-- Locks: settlement_positions and settlement_days, rows that only the holder of the turn writes.
WITH batches AS MATERIALIZED (
    SELECT first_operation_id, last_operation_id, operation_count, business_date, shard, sequence
    FROM event_batches
    WHERE sequence > $1::bigint
    ORDER BY sequence
    LIMIT $2::integer
), moved AS (
    SELECT p.account_id, b.business_date, sum(p.debit_minor) AS debit_minor, sum(p.credit_minor) AS credit_minor,
           sum(p.posting_count) AS posting_count
    FROM batches AS b
    CROSS JOIN LATERAL (
        SELECT side.account_id, sum(side.debit_minor) AS debit_minor, sum(side.credit_minor) AS credit_minor,
               count(*) AS posting_count
        FROM postings AS p
        CROSS JOIN LATERAL (
            VALUES (p.debit_account_id, p.amount_minor, 0::bigint), (p.credit_account_id, 0::bigint, p.amount_minor)
        ) AS side (account_id, debit_minor, credit_minor)
        WHERE p.operation_id BETWEEN b.first_operation_id AND b.last_operation_id AND p.shard = b.shard
              AND p.business_date = b.business_date AND side.account_id < 1000000
        GROUP BY side.account_id
    ) AS p
    GROUP BY p.account_id, b.business_date
), positions AS (
    INSERT INTO settlement_positions AS s (account_id, business_date, debit_minor, credit_minor, posting_count)
    SELECT account_id, business_date, debit_minor, credit_minor, posting_count FROM moved
    ON CONFLICT ON CONSTRAINT settlement_positions_pkey DO UPDATE
    SET debit_minor = s.debit_minor + excluded.debit_minor, credit_minor = s.credit_minor + excluded.credit_minor,
        posting_count = s.posting_count + excluded.posting_count
), days AS (
    INSERT INTO settlement_days AS d (business_date, first_sequence, last_sequence, event_count)
    SELECT business_date, min(sequence), max(sequence + operation_count - 1), sum(operation_count)
    FROM batches
    GROUP BY business_date
    ON CONFLICT ON CONSTRAINT settlement_days_pkey DO UPDATE
    SET last_sequence = excluded.last_sequence, event_count = d.event_count + excluded.event_count
)
UPDATE position_watermark
SET through_sequence = coalesce((SELECT max(sequence + operation_count - 1) FROM batches), through_sequence)
RETURNING through_sequence
