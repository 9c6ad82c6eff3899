-- Reads a change.
-- Parameters: $1 change id (uuid). Rows: one, or none when there is no such change. Locks: none.
SELECT change_id, change_number, rule_kind, rule_count, base_version, state, justification, proposed_by, proposed_at,
       decided_by, decided_at, version
FROM rule_changes
WHERE change_id = $1::uuid
