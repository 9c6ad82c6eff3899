-- Finds the change that a component's request id was used for.
-- Parameters: request id. Rows: its change id, or none. Locks: none.
SELECT change_id FROM key_components WHERE request_id = $1::uuid
