-- Lists the closings of a business date.
-- Parameters: $1 business date. Rows: participant, its settlement account, manifest, ascending. Locks: none.
SELECT c.participant_id, p.settlement_account_id, c.manifest
FROM closings AS c
JOIN participants AS p ON p.participant_id = c.participant_id
WHERE c.business_date = $1::date
ORDER BY c.participant_id
