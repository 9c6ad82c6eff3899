-- Takes grants of one kind from a participant.
-- Parameters: $1 participant id (text), $2 grant kind (text), $3 grant values (text[]). Rows: one for each grant taken.
-- Locks: the deleted rows.
DELETE FROM participant_grants
WHERE participant_id = $1::text AND grant_kind = $2::text AND grant_value = ANY ($3::text[])
RETURNING grant_value
