-- Decides a change that waits: APPROVED, with the next version, which the table's trigger gives, or REJECTED.
-- Parameters: $1 change id (uuid), $2 state (text), $3 participant (text), $4 request id (uuid).
-- Rows: the change, or none when it was decided. Locks: the row, which the caller holds; then that of approvals.
UPDATE rule_changes
SET state = $2::text, decided_by = $3::text, decision_id = $4::uuid, decided_at = clock_timestamp()
WHERE change_id = $1::uuid AND state = 'PROPOSED'
RETURNING change_id, change_number, rule_kind, rule_count, base_version, state, justification, proposed_by, proposed_at,
          decided_by, decided_at, version
