-- Locks a change, so that it is decided once, and tells what time it is.
-- Parameters: change id. Rows: one, or none when there is no such change. Locks: the row, for update.
SELECT change_id, change_number, kind, key_name, key_version, components_needed, state, justification, request,
       details, under_version, proposed_by, proposed_at, decided_by, decided_at, clock_timestamp() AS now
FROM key_changes
WHERE change_id = $1::uuid
FOR UPDATE
