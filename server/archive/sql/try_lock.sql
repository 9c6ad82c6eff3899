-- Takes the lock under which one archives or restores at a time.
-- Parameters: none. Rows: one: whether it was free. Locks: an advisory one, "onecard" and 7, until the session ends.
SELECT pg_try_advisory_lock(8029466663159227399)
