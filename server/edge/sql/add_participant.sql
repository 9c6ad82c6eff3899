-- Adds a participant; an existing one keeps its id and becomes active again under the new name and kind.
-- Parameters: $1 participant id (text), $2 name (text), $3 kind (text). Rows: one, whether it is new.
-- Locks: the participant's row.
INSERT INTO participants (participant_id, name, kind, state)
VALUES ($1::text, $2::text, $3::text, 'active')
ON CONFLICT ON CONSTRAINT participants_pkey
DO UPDATE SET name = excluded.name, kind = excluded.kind, state = 'active'
RETURNING xmax = 0 AS is_new
