-- Gives back the lock of try_lock.sql.
-- Parameters: none. Rows: one. Locks: frees the advisory one.
SELECT pg_advisory_unlock(8029466663159227399)
