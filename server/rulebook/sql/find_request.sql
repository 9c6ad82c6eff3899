-- Finds what a request id was used for: a part of a proposal, or a decision.
-- Parameters: $1 request id (uuid). Rows: one or none: change id, number of the part or null, and for a decision its state
--   and who decided. Locks: none.
SELECT change_id, part_number, NULL AS state, NULL AS decided_by FROM rule_change_parts WHERE request_id = $1::uuid
UNION ALL
SELECT change_id, NULL, state, decided_by FROM rule_changes WHERE decision_id = $1::uuid
LIMIT 1
