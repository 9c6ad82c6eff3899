-- Creates the partitions of coming business days; those that exist stay.
-- Parameters: $1 first business date (date), $2 days (integer). Rows: one, the number created.
-- Locks: ACCESS EXCLUSIVE on the partitioned tables, for the moment of creating a partition.
SELECT ensure_partitions($1::date, $2::integer)
