-- Reads who brought the components of a change, and the components as long as they are kept. A statement of its own,
-- after the change is locked: only then does it see what was submitted before.
-- Parameters: change id. Rows: one for each component, by number. Locks: none.
SELECT component_number, participant_id, request_id, component_sealed, kcv
FROM key_components
WHERE change_id = $1::uuid
ORDER BY component_number
