-- The time that decides.
-- Parameters: none. Rows: one. Locks: none.
SELECT extract(epoch FROM clock_timestamp())::bigint
