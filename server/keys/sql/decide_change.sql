-- Decides a change that waits: APPROVED or REJECTED.
-- Parameters: change id, state, participant. Rows: when it was decided. Locks: the row, which the caller holds already.
UPDATE key_changes
SET state = $2, decided_by = $3, decided_at = clock_timestamp()
WHERE change_id = $1::uuid AND state = 'PROPOSED'
RETURNING decided_at
