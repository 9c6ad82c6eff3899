-- Gives back the lock of try_lock.sql.
-- Parameters: none. Rows: one. Locks: frees the advisory one.
SELECT pg_advisory_unlock(x'6F6E656361726407'::bigint)
