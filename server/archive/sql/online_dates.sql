-- Lists the business dates whose operations are online, the oldest first.
-- Parameters: none. Rows: one for each partition. Locks: none.
SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS business_date
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'operations'::regclass AND c.relname ~ '^operations_[0-9]{8}$'
ORDER BY 1
