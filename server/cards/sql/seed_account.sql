-- Reads the settlement account of opening balances.
-- Parameters: none. Rows: one. Locks: none.
SELECT settlement_account_id FROM participants WHERE participant_id = 'opening-balances'
