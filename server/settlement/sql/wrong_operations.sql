-- Counts money operations whose postings do not fit their outcome: an approved one has exactly one posting, of its
-- amount and with a wallet of its card on one side; a declined one has none; no posting is without an operation.
-- Parameters: none. Rows: one: approved without their posting, declined with one, postings without an operation.
-- Locks: none.
WITH posted AS (
    SELECT operation_id, business_date, count(*) AS postings, min(amount_minor) AS amount_minor,
           min(greatest(debit_account_id, credit_account_id)) AS wallet_id
    FROM postings
    GROUP BY operation_id, business_date
)
SELECT count(*) FILTER (
           WHERE o.response_code = '00'
                 AND (p.operation_id IS NULL OR p.postings <> 1 OR p.amount_minor <> o.amount_minor
                      OR a.card_id IS DISTINCT FROM o.card_id)
       ) AS approved_without_posting,
       count(*) FILTER (WHERE o.response_code <> '00' AND p.operation_id IS NOT NULL) AS declined_with_posting,
       count(*) FILTER (WHERE o.operation_id IS NULL) AS postings_without_operation
FROM (SELECT * FROM operations WHERE amount_minor IS NOT NULL) AS o
FULL JOIN posted AS p ON p.operation_id = o.operation_id AND p.business_date = o.business_date
LEFT JOIN accounts AS a ON a.account_id = p.wallet_id
