-- Tells which changes were approved after a version.
-- Parameters: $1 version (bigint). Rows: change id and version of each. Locks: none.
SELECT change_id, version FROM rule_changes WHERE version > $1::bigint
