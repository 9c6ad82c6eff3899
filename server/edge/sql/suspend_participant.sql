-- Suspends a participant; its grants stay for the day it is added again.
-- Parameters: $1 participant id (text). Rows: one if it exists.
-- Locks: the participant's row.
UPDATE participants SET state = 'suspended' WHERE participant_id = $1::text
RETURNING participant_id
