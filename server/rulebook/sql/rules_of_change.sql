-- Reads the rules of a change.
-- Parameters: $1 change id (uuid). Rows: one for each content: a version that says nothing, kind, content, subjects; as
--   changed_rules.sql. Locks: none.
SELECT 0::bigint, l.rule_kind, l.content, array_agg(l.subject)
FROM (
    SELECT rule_kind, subject, content::text COLLATE "C" AS content FROM rule_change_lines WHERE change_id = $1::uuid
) AS l
GROUP BY l.rule_kind, l.content
