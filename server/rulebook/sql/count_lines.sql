-- Counts the rules that a change has, up to a part.
-- Parameters: $1 change id (uuid), $2 last part (smallint; null: all). Rows: one. Locks: none.
SELECT count(*) FROM rule_change_lines WHERE change_id = $1::uuid AND part_number <= coalesce($2::smallint, 32767)
