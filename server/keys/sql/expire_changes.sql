-- Ends the proposals that nobody decided in time, drops their components and says so in the audit.
-- Parameters: hours. Rows: ids of the expired. Locks: rows of those changes and their components; what another
-- transaction holds is left for the next time.
WITH due AS (
    SELECT change_id FROM key_changes
    WHERE state = 'PROPOSED' AND proposed_at < clock_timestamp() - make_interval(hours => $1::int)
    ORDER BY change_id
    FOR UPDATE SKIP LOCKED
), expired AS (
    UPDATE key_changes AS c
    SET state = 'EXPIRED', decided_by = 'housekeeper', decided_at = clock_timestamp()
    FROM due WHERE c.change_id = due.change_id
    RETURNING c.change_id, c.key_name, c.key_version, c.kind
), dropped AS (
    UPDATE key_components AS k SET component_sealed = NULL
    FROM due WHERE k.change_id = due.change_id
)
INSERT INTO key_audit (step, participant_id, change_id, key_name, key_version, detail)
SELECT 'EXPIRED', 'housekeeper', change_id, key_name, key_version, kind FROM expired
RETURNING change_id
