-- Counts money operations whose postings do not fit their outcome: approved ones have one posting of their amount,
-- declined ones have none; and postings without an operation.
-- Parameters: none. Rows: one: approved without their posting, declined with one, postings without an operation.
-- Locks: none.
SELECT count(*) FILTER (WHERE o.response_code = '00' AND (p.operation_id IS NULL OR p.amount_minor <> o.amount_minor))
           AS approved_without_posting,
       count(*) FILTER (WHERE o.response_code <> '00' AND p.operation_id IS NOT NULL) AS declined_with_posting,
       count(*) FILTER (WHERE o.operation_id IS NULL) AS postings_without_operation
FROM (SELECT * FROM operations WHERE amount_minor IS NOT NULL) AS o
FULL JOIN postings AS p ON p.operation_id = o.operation_id AND p.business_date = o.business_date
