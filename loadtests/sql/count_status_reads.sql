-- Counts the entries that a participant's status queries left in the access log.
-- Parameters: $1 participant, $2 operation kind. Rows: one: the count. Locks: none.
SELECT count(*) FROM access_log WHERE participant_id = $1 AND operation_kind = $2::smallint
