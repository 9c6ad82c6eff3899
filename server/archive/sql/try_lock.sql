-- Takes the lock under which one archives or restores at a time.
-- Parameters: none. Rows: one: whether it was free. Locks: an advisory one, "onecard" and 7, until the session ends.
SELECT pg_try_advisory_lock(x'6F6E656361726407'::bigint)
