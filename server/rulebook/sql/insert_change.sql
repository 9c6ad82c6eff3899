-- Adds a proposal, unless its id is taken, and notes the newest version that its proposer could know.
-- Parameters: $1 change id (uuid), $2 kind (text), $3 rules it is to have (integer), $4 justification (text),
--   $5 participant (text). Rows: its number, or none when the id is taken. Locks: the new row.
INSERT INTO rule_changes (change_id, rule_kind, rule_count, justification, proposed_by, base_version)
SELECT $1::uuid, $2::text, $3::integer, $4::text, $5::text, coalesce(max(version), 0) FROM rule_changes
ON CONFLICT ON CONSTRAINT rule_changes_pkey DO NOTHING
RETURNING change_number
