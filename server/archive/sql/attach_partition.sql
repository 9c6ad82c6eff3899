-- Attaches the table of a business date.
-- Parameters: $1 partitioned table, $2 business date. Rows: one, empty.
-- Locks: SHARE UPDATE EXCLUSIVE on the partitioned table, which no reader or writer waits for.
SELECT attach_partition($1::text, $2::date)
