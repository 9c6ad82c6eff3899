-- Makes the table of a business date, not yet attached.
-- Parameters: $1 partitioned table, $2 business date. Rows: one, empty. Locks: the new table.
SELECT make_partition($1::text, $2::date)
