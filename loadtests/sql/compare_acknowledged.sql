-- Compares what a participant was answered with what is stored for it.
-- Parameters: $1 participant, $2-$5 one array each of the answers' request ids, operation kinds, reasons and amounts.
-- Rows: one: answers without their row, answers with more than one, answers whose row says something else.
-- Locks: none.
WITH answered AS (
    SELECT a.request_id, a.operation_kind, a.reason, a.amount_minor
    FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::bigint[])
        AS a (request_id, operation_kind, reason, amount_minor)
), stored AS (
    SELECT o.request_id, count(*) AS row_count, min(o.operation_kind) AS operation_kind, min(o.reason) AS reason,
           min(o.amount_minor) AS amount_minor
    FROM operations AS o
    WHERE o.participant_id = $1
    GROUP BY o.request_id
)
SELECT count(*) FILTER (WHERE s.request_id IS NULL) AS missing,
       count(*) FILTER (WHERE s.row_count > 1) AS repeated,
       count(*) FILTER (
           WHERE s.row_count = 1
             AND (s.operation_kind, s.reason) <> (a.operation_kind, a.reason)
              OR s.row_count = 1 AND s.amount_minor IS DISTINCT FROM a.amount_minor
       ) AS different
FROM answered AS a
LEFT JOIN stored AS s USING (request_id)
