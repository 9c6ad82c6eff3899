-- Checks accounts without a row: positions are the postings of the batches that are rolled up, date by date; those of
-- dates that are archived come to what was carried over.
-- Parameters: $1 online business dates (date[]).
-- Rows: one: balance of all of these accounts by postings, positions that are wrong. Locks: none.
WITH sides AS (
    SELECT account_id, business_date, sum(debit_minor) AS debit_minor, sum(credit_minor) AS credit_minor
    FROM (
        SELECT debit_account_id AS account_id, business_date, amount_minor AS debit_minor, 0 AS credit_minor
        FROM postings WHERE debit_account_id < 1000000
        UNION ALL
        SELECT credit_account_id, business_date, 0, amount_minor FROM postings WHERE credit_account_id < 1000000
    ) AS every
    GROUP BY account_id, business_date
), later AS (
    SELECT s.account_id, b.business_date, sum(s.debit_minor) AS debit_minor, sum(s.credit_minor) AS credit_minor
    FROM event_batches AS b
    CROSS JOIN LATERAL (
        SELECT side.account_id, sum(side.debit_minor) AS debit_minor, sum(side.credit_minor) AS credit_minor
        FROM postings AS p
        CROSS JOIN LATERAL (
            VALUES (p.debit_account_id, p.amount_minor, 0::bigint), (p.credit_account_id, 0::bigint, p.amount_minor)
        ) AS side (account_id, debit_minor, credit_minor)
        WHERE p.operation_id BETWEEN b.first_operation_id AND b.last_operation_id AND p.shard = b.shard
              AND p.business_date = b.business_date AND side.account_id < 1000000
        GROUP BY side.account_id
    ) AS s
    WHERE b.sequence IS NULL OR b.sequence > (SELECT through_sequence FROM position_watermark)
    GROUP BY s.account_id, b.business_date
), online AS (
    SELECT s.account_id, s.business_date, s.debit_minor - coalesce(l.debit_minor, 0) AS debit_minor,
           s.credit_minor - coalesce(l.credit_minor, 0) AS credit_minor
    FROM sides AS s
    LEFT JOIN later AS l ON l.account_id = s.account_id AND l.business_date = s.business_date
), archived AS (
    SELECT account_id, sum(amount_minor) AS amount_minor
    FROM archived_balances
    WHERE account_id < 1000000
    GROUP BY account_id
), before AS (
    SELECT account_id, sum(credit_minor - debit_minor) AS amount_minor
    FROM settlement_positions
    WHERE business_date <> ALL ($1::date[])
    GROUP BY account_id
)
SELECT (SELECT coalesce(sum(credit_minor - debit_minor), 0)::bigint FROM sides)
       + (SELECT coalesce(sum(amount_minor), 0)::bigint FROM archived) AS settlement_minor,
       (SELECT count(*)
        FROM online AS o
        FULL JOIN (SELECT * FROM settlement_positions WHERE business_date = ANY ($1::date[])) AS s
             ON s.account_id = o.account_id AND s.business_date = o.business_date
        WHERE coalesce(o.debit_minor, 0) <> coalesce(s.debit_minor, 0)
              OR coalesce(o.credit_minor, 0) <> coalesce(s.credit_minor, 0))
       + (SELECT count(*)
          FROM archived AS a
          FULL JOIN before AS b ON b.account_id = a.account_id
          WHERE coalesce(a.amount_minor, 0) <> coalesce(b.amount_minor, 0)) AS positions_wrong
