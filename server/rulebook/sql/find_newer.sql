-- Finds a rule for one of a change's subjects that was approved after the change was proposed.
-- Parameters: $1 change id (uuid), $2 version when it was proposed (bigint), $3 kind (text).
-- Rows: one or none. Locks: none; the caller holds that of approvals.
SELECT theirs.subject
FROM rule_changes AS newer
JOIN rule_change_lines AS theirs ON theirs.change_id = newer.change_id
JOIN rule_change_lines AS ours ON ours.change_id = $1::uuid AND ours.subject = theirs.subject
WHERE newer.version > $2::bigint AND newer.rule_kind = $3::text
LIMIT 1
