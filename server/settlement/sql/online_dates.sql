-- Lists the business dates that have a partition of operations or of postings.
-- Parameters: none. Rows: dates, ascending. Locks: none.
SELECT DISTINCT to_date(right(c.relname, 8), 'YYYYMMDD') AS business_date
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent IN ('operations'::regclass, 'postings'::regclass)
ORDER BY 1
