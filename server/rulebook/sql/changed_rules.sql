-- Reads the rules that were approved after a version.
-- Parameters: $1 version. Rows: one for each approved change, in ascending version. Locks: none.
SELECT version, rule_kind, subject, content::text
FROM rule_changes
WHERE version > $1::bigint
ORDER BY version
