-- Grants values of one kind to a participant; grants it has stay.
-- Parameters: $1 participant id (text), $2 grant kind (text), $3 grant values (text[]). Rows: one for each new grant.
-- Locks: the participant's row, shared (foreign key).
INSERT INTO participant_grants (participant_id, grant_kind, grant_value)
SELECT $1::text, $2::text, grant_value FROM unnest($3::text[]) AS grant_value ORDER BY grant_value
ON CONFLICT ON CONSTRAINT participant_grants_pkey DO NOTHING
RETURNING grant_value
