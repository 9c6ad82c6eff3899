-- Adds the rules of a part.
-- Parameters: $1 change id (uuid), $2 kind (text), $3 part (smallint), $4 subjects (text[]), $5 contents (text[]: JSON),
--   $6 for each subject the place of its content, from 1 (integer[]).
-- Rows: none. Locks: the new rows, and the change for share.
INSERT INTO rule_change_lines (change_id, rule_kind, part_number, subject, content)
SELECT $1::uuid, $2::text, $3::smallint, line.subject, ($5::text[])[line.place]::jsonb
FROM unnest($4::text[], $6::integer[]) AS line (subject, place)
