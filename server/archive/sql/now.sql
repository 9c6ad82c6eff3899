-- Tells what time it is to the database.
-- Parameters: none. Rows: one. Locks: none.
SELECT clock_timestamp()
