-- Ends a change that was approved: EXECUTED or FAILED. Who approved it, and when, stays.
-- Parameters: change id, state, key version. Rows: its number. Locks: the row, which the caller holds already.
UPDATE key_changes
SET state = $2, key_version = $3::smallint
WHERE change_id = $1::uuid AND state = 'APPROVED'
RETURNING change_number
