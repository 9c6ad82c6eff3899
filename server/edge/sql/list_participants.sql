-- Lists participants with their grants as kind:value.
-- Parameters: none. Rows: one for each participant, in order of id.
-- Locks: none.
SELECT p.participant_id, p.name, p.kind, p.state,
       ARRAY (SELECT g.grant_kind || ':' || g.grant_value
              FROM participant_grants AS g
              WHERE g.participant_id = p.participant_id
              ORDER BY g.grant_kind, g.grant_value) AS grants
FROM participants AS p
ORDER BY p.participant_id
