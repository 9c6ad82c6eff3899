-- Drops the components of a change that has ended; who brought them stays.
-- Parameters: change id. Rows: none. Locks: the components' rows; the caller holds the change's row.
UPDATE key_components SET component_sealed = NULL
WHERE change_id = $1::uuid
