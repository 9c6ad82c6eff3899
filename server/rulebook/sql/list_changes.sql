-- Reads a page of changes, the latest first.
-- Parameters: $1 kind (text; empty: all), $2 subject (text; empty: all), $3 only those that are PROPOSED (boolean), $4 number
--   to go on below (bigint; null: from the latest), $5 rows at most (integer). Rows: that many at most. Locks: none.
SELECT c.change_id, c.change_number, c.rule_kind, c.rule_count, c.base_version, c.state, c.justification, c.proposed_by,
       c.proposed_at, c.decided_by, c.decided_at, c.version
FROM rule_changes AS c
WHERE ($1::text = '' OR c.rule_kind = $1)
      AND ($2::text = '' OR EXISTS (
          SELECT FROM rule_change_lines AS l WHERE l.change_id = c.change_id AND l.subject = $2))
      AND (NOT $3::boolean OR c.state = 'PROPOSED')
      AND ($4::bigint IS NULL OR c.change_number < $4)
ORDER BY c.change_number DESC
LIMIT $5::integer
