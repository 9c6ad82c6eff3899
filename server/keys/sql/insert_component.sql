-- Keeps a sealed component.
-- Parameters: change id, number, participant, request id, sealed component, check value. Rows: none.
-- Locks: the new row; the caller holds the change's row.
INSERT INTO key_components (change_id, component_number, participant_id, request_id, component_sealed, kcv)
VALUES ($1::uuid, $2::smallint, $3, $4::uuid, $5, $6)
