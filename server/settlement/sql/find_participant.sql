-- Finds a participant's settlement account.
-- Parameters: $1 participant. Rows: one, or none when it does not exist: settlement account. Locks: none.
SELECT settlement_account_id FROM participants WHERE participant_id = $1
