-- Reads a page of changes, the latest first.
-- Parameters: only those that are PROPOSED, number to go on below (null: from the latest), rows at most.
-- Rows: that many at most. Locks: none.
SELECT c.change_id, c.change_number, c.kind, c.key_name, c.key_version, c.components_needed, c.state, c.justification,
       c.request, c.details, c.under_version, c.proposed_by, c.proposed_at, c.decided_by, c.decided_at,
       clock_timestamp() AS now,
       (SELECT count(*) FROM key_components AS k WHERE k.change_id = c.change_id)::int AS components_given
FROM key_changes AS c
WHERE (NOT $1::boolean OR c.state = 'PROPOSED') AND ($2::bigint IS NULL OR c.change_number < $2)
ORDER BY c.change_number DESC
LIMIT $3::int
