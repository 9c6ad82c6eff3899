-- Waits for the transactions that write operations of a business date or of one before it, and keeps new ones out.
-- Parameters: $1 business date. Rows: one.
-- Locks: the advisory locks of the date and of 60 dates before it, for which partitions may still be there, until the
--   transaction ends; see `require_open_day` in the schema.
SELECT count(pg_advisory_xact_lock(1869505891, $1::date - date '2000-01-01' - days))
FROM generate_series(60, 0, -1) AS days
