-- Writes a step into the audit of keys.
-- Parameters: step, participant, change id or null, key name, key version, detail. Rows: none. Locks: the new row.
INSERT INTO key_audit (step, participant_id, change_id, key_name, key_version, detail)
VALUES ($1, $2, $3::uuid, $4, $5::smallint, $6)
