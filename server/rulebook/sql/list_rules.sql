-- Reads a page of the rules in force of a kind, by subject.
-- Parameters: $1 kind (text), $2 begin of the subjects (text), $3 subject to go on after (text; empty: from the first),
--   $4 rows at most (integer). Rows: that many at most. Locks: none.
-- All characters of a subject are below chr(127), so that a prefix is a range of the index.
SELECT DISTINCT ON (l.subject) l.subject, l.content::text, c.version, l.change_id
FROM rule_change_lines AS l
JOIN rule_changes AS c ON c.change_id = l.change_id
WHERE l.rule_kind = $1::text AND l.subject >= $2::text AND l.subject < $2::text || chr(127) AND l.subject > $3::text
      AND c.version IS NOT NULL
ORDER BY l.subject, c.version DESC
LIMIT $4::integer
