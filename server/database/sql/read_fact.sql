-- Reads what a database was made for.
-- Parameters: $1 fact. Rows: one, or none when it is not recorded. Locks: none.
SELECT value FROM database_facts WHERE fact = $1
