-- Adds a proposal, unless its id is taken.
-- Parameters: change id, kind, key name, key version (0: not yet made), components needed, justification, request,
-- details, version of the protecting key (0: none), participant. Rows: its number, or none when the id is taken.
-- Locks: the new row.
INSERT INTO key_changes (
    change_id, kind, key_name, key_version, components_needed, justification, request, details, under_version,
    proposed_by
) VALUES ($1::uuid, $2, $3, $4::smallint, $5::smallint, $6, $7, $8::text[], $9::smallint, $10)
ON CONFLICT ON CONSTRAINT key_changes_pkey DO NOTHING
RETURNING change_number
