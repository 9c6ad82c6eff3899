-- Lets one approval at a time through, so that none decides by rules that another is just replacing.
-- Parameters: none. Rows: one. Locks: the advisory lock of versions ("onecard" and 3) until the transaction ends; after
--   that of the change.
SELECT pg_advisory_xact_lock(x'6F6E656361726403'::bigint)
