-- Tells which large changes of the last day are whole and wait for their approval, the latest first.
-- Parameters: $1 least number of rules (integer), $2 changes that are known to be whole, and need not be counted again
--   (uuid[]). Rows: change id and number of rules of each. Locks: none.
SELECT c.change_id, c.rule_count
FROM rule_changes AS c
WHERE c.state = 'PROPOSED' AND c.rule_count >= $1::integer AND c.proposed_at > clock_timestamp() - interval '1 day'
      AND (c.change_id = ANY ($2::uuid[])
           OR c.rule_count = (SELECT count(*) FROM rule_change_lines AS l WHERE l.change_id = c.change_id))
ORDER BY c.change_number DESC
LIMIT 100
