-- Counts request ids that have more than one outcome within the 72 hours for which an id is promised to have one. Later an
-- id may be used again, as long as its row is not found any more.
-- Parameters: none. Rows: one: the count. Locks: none.
SELECT count(*)
FROM (SELECT request_id FROM operations GROUP BY request_id HAVING count(*) > 1) AS r
WHERE EXISTS (
    SELECT FROM (
        SELECT o.decided_at - lag(o.decided_at) OVER (ORDER BY o.decided_at) AS apart
        FROM operations AS o
        WHERE o.request_id = r.request_id
    ) AS outcomes
    WHERE apart < interval '72 hours'
)
