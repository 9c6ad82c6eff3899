-- Adds a proposal, unless its id is taken.
-- Parameters: change id, kind, key name, key version (0: not yet made), components needed, justification, request,
-- participant. Rows: its number, or none when the id is taken. Locks: the new row.
INSERT INTO key_changes (
    change_id, kind, key_name, key_version, components_needed, justification, request, proposed_by
) VALUES ($1::uuid, $2, $3, $4::smallint, $5::smallint, $6, $7, $8)
ON CONFLICT ON CONSTRAINT key_changes_pkey DO NOTHING
RETURNING change_number
