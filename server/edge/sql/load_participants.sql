-- Reads the active participants with their grants.
-- Parameters: none. Rows: one for each grant; one with NULLs for a participant without grants.
-- Locks: none.
SELECT p.participant_id, p.kind, p.settlement_account_id, g.grant_kind, g.grant_value
FROM participants AS p
LEFT JOIN participant_grants AS g ON g.participant_id = p.participant_id
WHERE p.state = 'active'
