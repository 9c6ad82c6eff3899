-- Reads a page of a change's rules, by subject, each beside the one that was in force before it.
-- Parameters: $1 change id (uuid), $2 its version (bigint; null: it waits or was rejected), $3 subject to go on after (text),
--   $4 rows at most (integer). Rows: that many at most. Locks: none.
SELECT l.subject, l.content::text, before.content::text AS content_before
FROM rule_change_lines AS l
LEFT JOIN LATERAL (
    SELECT other.content
    FROM rule_change_lines AS other
    JOIN rule_changes AS c ON c.change_id = other.change_id
    WHERE other.rule_kind = l.rule_kind AND other.subject = l.subject AND c.version IS NOT NULL
          AND ($2::bigint IS NULL OR c.version < $2)
    ORDER BY c.version DESC
    LIMIT 1
) AS before ON true
WHERE l.change_id = $1::uuid AND l.subject > $3::text
ORDER BY l.subject
LIMIT $4::integer
