-- Reads a page of the audit of keys, the latest first.
-- Parameters: key name (empty: all), entry to go on below (null: from the latest), rows at most. Rows: that many at
-- most. Locks: none.
SELECT entry_id, recorded_at, step, participant_id, change_id, key_name, key_version, detail
FROM key_audit
WHERE ($1::text = '' OR key_name = $1) AND ($2::bigint IS NULL OR entry_id < $2)
ORDER BY entry_id DESC
LIMIT $3::int
