-- Detaches and drops the partitions of a business date.
-- Parameters: $1 business date. Rows: one, empty.
-- Locks: ACCESS EXCLUSIVE on operations, then postings, until the transaction ends: under a short lock_timeout only.
SELECT drop_partitions($1::date)
