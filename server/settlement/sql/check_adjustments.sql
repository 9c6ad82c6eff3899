-- Checks what was taken back of operations against the operations that took it back. The reversal of a refund or void
-- counts against it and gives back what it took from its own original. Those that released a hold took nothing back.
-- Parameters: none. Rows: one: operations whose sums are wrong, of those that are online themselves. Locks: none.
WITH follow_ups AS (
    SELECT f.operation_kind, f.approved_minor, f.original_operation_id, o.operation_kind AS original_kind,
           o.original_operation_id AS parent_operation_id
    FROM operations AS f
    JOIN operations AS o ON o.operation_id = f.original_operation_id
    WHERE f.operation_kind IN (10, 11, 12) AND f.response_code IN ('00', '10') AND f.approved_minor > 0
          AND f.original_operation_id IS NOT NULL AND o.operation_kind <> 7
), taken AS (
    SELECT original_operation_id AS operation_id,
           CASE WHEN operation_kind = 11 THEN 0 ELSE approved_minor END AS reversed_minor,
           CASE WHEN operation_kind = 11 THEN approved_minor ELSE 0 END AS refunded_minor
    FROM follow_ups
    UNION ALL
    SELECT parent_operation_id,
           CASE WHEN original_kind = 10 THEN -approved_minor ELSE 0 END,
           CASE WHEN original_kind = 11 THEN -approved_minor ELSE 0 END
    FROM follow_ups
    WHERE operation_kind = 12 AND original_kind IN (10, 11)
), expected AS (
    SELECT operation_id, sum(reversed_minor) AS reversed_minor, sum(refunded_minor) AS refunded_minor
    FROM taken
    GROUP BY operation_id
)
SELECT count(*) AS adjustments_wrong
FROM adjustments AS a
FULL JOIN expected AS e ON e.operation_id = a.operation_id
WHERE (coalesce(a.reversed_minor, 0) <> coalesce(e.reversed_minor, 0)
       OR coalesce(a.refunded_minor, 0) <> coalesce(e.refunded_minor, 0)
       OR a.approved_minor <> (
           SELECT coalesce(o.approved_minor, o.amount_minor) FROM operations AS o WHERE o.operation_id = a.operation_id
       ))
      AND EXISTS (
          SELECT FROM operations AS o
          WHERE o.operation_id = coalesce(a.operation_id, e.operation_id)
                -- Of a date that was restored alone, what was taken back later may be archived still.
                AND o.business_date > coalesce(
                    (SELECT max(r.business_date) FROM archives AS r
                     WHERE to_regclass(partition_name('operations', r.business_date)) IS NULL), '-infinity')
      )
