-- Lists participants with operations or movements in a closed business date that have no files of it.
-- Parameters: $1 business date. Rows: participant, its settlement account, ascending. Locks: none.
WITH active AS MATERIALIZED (
    SELECT participant_id FROM operations WHERE business_date = $1::date AND operation_kind <> 15 GROUP BY participant_id
)
SELECT p.participant_id, p.settlement_account_id
FROM participants AS p
WHERE NOT EXISTS (
          SELECT FROM closings AS c WHERE c.business_date = $1::date AND c.participant_id = p.participant_id
      )
      AND (EXISTS (SELECT FROM active AS a WHERE a.participant_id = p.participant_id)
           OR EXISTS (
               SELECT FROM settlement_positions AS s
               WHERE s.account_id = ANY (ARRAY[p.settlement_account_id, 400000 + p.settlement_account_id,
                                               700000 + p.settlement_account_id])
                     AND s.business_date = $1::date
           ))
ORDER BY p.participant_id
