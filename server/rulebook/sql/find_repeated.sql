-- Finds subjects that a change has a rule for.
-- Parameters: $1 change id (uuid), $2 subjects (text[]). Rows: one or none. Locks: none.
SELECT subject FROM rule_change_lines WHERE change_id = $1::uuid AND subject = ANY ($2::text[]) LIMIT 1
