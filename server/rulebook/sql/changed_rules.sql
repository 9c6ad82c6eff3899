-- Reads what is in force of the rules that were approved after a version.
-- Parameters: $1 version (0: all that is in force). Rows: one for each content of a kind: the newest version it came
--   with, kind, content, subjects. No subject is in two rows. Together because a fleet has few contents: tens of
--   thousands of terminals then come as one array.
-- Locks: none. OFFSET 0 keeps the order of the join: changes first, then their lines by the primary key. Once the tables
--   are full, the planner would rather walk all subjects in their order, which takes a third of a second for one rule.
WITH newer AS MATERIALIZED (
    SELECT change_id, version FROM rule_changes WHERE version > $1::bigint
)
SELECT max(latest.version), latest.rule_kind, latest.content, array_agg(latest.subject)
FROM (
    SELECT DISTINCT ON (l.rule_kind, l.subject) newer.version, l.rule_kind, l.subject,
                                                    l.content::text COLLATE "C" AS content
    FROM newer
    CROSS JOIN LATERAL (
        SELECT rule_kind, subject, content FROM rule_change_lines WHERE change_id = newer.change_id OFFSET 0
    ) AS l
    ORDER BY l.rule_kind, l.subject, newer.version DESC
) AS latest
GROUP BY latest.rule_kind, latest.content
