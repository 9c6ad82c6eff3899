-- Reads the rules that came with one request.
-- Parameters: $1 change id (uuid), $2 part (smallint). Rows: one for each rule. Locks: none.
SELECT subject, content::text FROM rule_change_lines WHERE change_id = $1::uuid AND part_number = $2::smallint
