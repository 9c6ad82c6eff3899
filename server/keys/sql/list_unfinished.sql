-- Finds the changes that were approved, but not carried out to their end in time.
-- Parameters: seconds since the approval. Rows: their ids, the oldest first. Locks: none.
SELECT change_id FROM key_changes
WHERE state = 'APPROVED' AND decided_at < clock_timestamp() - make_interval(secs => $1::int)
ORDER BY change_number
