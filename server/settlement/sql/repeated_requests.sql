-- Counts request ids that have more than one outcome.
-- Parameters: none. Rows: one: the count. Locks: none.
SELECT count(*) FROM (SELECT 1 FROM operations GROUP BY request_id HAVING count(*) > 1) AS repeated
