-- Reads the unique constraints of the credentials, which are cheaper built over loaded rows than kept while they load.
-- Parameters: none. Rows: conname, definition. Locks: none.
SELECT conname::text, pg_get_constraintdef(oid) AS definition
FROM pg_constraint
WHERE conrelid = 'card_credentials'::regclass AND contype IN ('p', 'u')
