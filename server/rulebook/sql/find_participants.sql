-- Finds which participants there are, suspended ones too.
-- Parameters: $1 participants (text[]). Rows: one for each that there is. Locks: none.
SELECT participant_id FROM participants WHERE participant_id = ANY ($1::text[])
