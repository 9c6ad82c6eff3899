-- Adds a part of a proposal, which the caller holds.
-- Parameters: $1 request id (uuid), $2 change id (uuid). Rows: its number, from 1. Locks: the new row.
INSERT INTO rule_change_parts (request_id, change_id, part_number)
SELECT $1::uuid, $2::uuid, coalesce(max(part_number), 0) + 1 FROM rule_change_parts WHERE change_id = $2
RETURNING part_number
