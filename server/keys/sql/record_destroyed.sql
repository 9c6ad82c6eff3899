-- Says in the audit which keys were destroyed, once for each, however often it is asked.
-- Parameters: key names, versions, check values, as arrays of one length. Rows: none. Locks: the new rows.
INSERT INTO key_audit (step, participant_id, change_id, key_name, key_version, detail)
SELECT 'DESTROYED', 'housekeeper', (
           SELECT c.change_id FROM key_changes AS c
           WHERE c.kind = 'DESTROY' AND c.state = 'EXECUTED' AND c.key_name = k.name AND c.key_version = k.version
           ORDER BY c.change_number DESC LIMIT 1
       ), k.name, k.version, 'kcv ' || k.kcv
FROM unnest($1::text[], $2::smallint[], $3::text[]) AS k (name, version, kcv)
WHERE NOT EXISTS (
    SELECT FROM key_audit AS a
    WHERE a.step = 'DESTROYED' AND a.key_name = k.name AND a.key_version = k.version
)
