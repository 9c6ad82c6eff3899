-- Checks a range of a date's operations against their postings. What was approved is what was posted, in however many
-- postings, for every kind that moves money; a hold and what releases one move none; nothing else does. A wallet that is
-- moved is the operation's own, but for transfers and what undoes them.
-- Parameters: $1 business date, $2 first operation id, $3 the next range's first operation id.
-- Rows: one: operations, postings, approved that do not fit, others with a posting, operations whose postings are not
--   there, postings of another wallet, postings in the wrong direction or on another participant's account. Locks: none.
WITH posted AS MATERIALIZED (
    SELECT operation_id, shard, count(*) AS postings, sum(amount_minor) AS amount_minor
    FROM postings
    WHERE business_date = $1::date AND operation_id >= $2::bigint AND operation_id < $3::bigint
    GROUP BY operation_id, shard
), decided AS (
    SELECT o.operation_id, o.shard, coalesce(o.response_code IN ('00', '10'), false) AS is_approved,
           CASE
               WHEN o.response_code IS NULL OR o.response_code NOT IN ('00', '10') THEN 0
               WHEN o.operation_kind IN (1, 2, 3) THEN coalesce(o.approved_minor, o.amount_minor)
               WHEN o.operation_kind IN (4, 5, 6, 9, 11, 13) THEN o.approved_minor
               WHEN o.operation_kind IN (10, 12) AND o.approved_minor > 0 AND (
                        EXISTS (SELECT FROM holds AS h WHERE h.hold_id = o.original_operation_id)
                        OR EXISTS (
                            SELECT FROM operations AS i
                            WHERE i.operation_id = o.original_operation_id AND i.operation_kind IN (7, 8)
                        )) THEN 0
               WHEN o.operation_kind IN (10, 12) THEN o.approved_minor
               ELSE 0
           END AS to_post_minor,
           -- What it undid, and so whether that had moved money, is not online any more.
           o.operation_kind IN (10, 12) AND o.approved_minor > 0 AND EXISTS (SELECT FROM archives)
           AND NOT EXISTS (SELECT FROM holds AS h WHERE h.hold_id = o.original_operation_id)
           AND NOT EXISTS (SELECT FROM operations AS i WHERE i.operation_id = o.original_operation_id)
               AS has_archived_original
    FROM operations AS o
    WHERE o.business_date = $1::date AND o.operation_id >= $2::bigint AND o.operation_id < $3::bigint
)
SELECT count(d.operation_id) AS operations, coalesce(sum(p.postings), 0)::bigint AS postings,
       count(*) FILTER (
           WHERE d.is_approved AND coalesce(p.amount_minor, 0) IS DISTINCT FROM d.to_post_minor
                 AND NOT (d.has_archived_original AND p.amount_minor IS NULL)
       ) AS approved_without_posting,
       count(*) FILTER (WHERE NOT d.is_approved AND p.postings > 0) AS declined_with_posting,
       count(*) FILTER (WHERE d.operation_id IS NULL) AS postings_without_operation,
       (SELECT count(*)
        FROM postings AS w
        JOIN operations AS o
             ON o.operation_id = w.operation_id AND o.shard = w.shard AND o.business_date = w.business_date
        WHERE w.business_date = $1::date AND w.operation_id >= $2::bigint AND w.operation_id < $3::bigint
              AND o.operation_kind NOT IN (5, 12)
              AND EXISTS (
                  SELECT FROM (VALUES (w.debit_account_id), (w.credit_account_id)) AS side (account_id)
                  WHERE side.account_id >= 1000000
                        AND side.account_id IS DISTINCT FROM coalesce(
                            o.account_id,
                            (SELECT a.account_id FROM accounts AS a
                             WHERE a.account_id = side.account_id AND a.card_id = o.card_id LIMIT 1))
              )) AS postings_of_other_wallets,
       (SELECT count(*)
        FROM postings AS w
        JOIN operations AS o
             ON o.operation_id = w.operation_id AND o.shard = w.shard AND o.business_date = w.business_date
        JOIN participants AS p ON p.participant_id = o.participant_id
        CROSS JOIN LATERAL (
            SELECT p.settlement_account_id AS settlement, 400000 + p.settlement_account_id AS suspense,
                   700000 + p.settlement_account_id AS fund
        ) AS own
        WHERE w.business_date = $1::date AND w.operation_id >= $2::bigint AND w.operation_id < $3::bigint
              AND NOT CASE
                  WHEN o.operation_kind IN (1, 4, 6, 9) THEN
                      (w.debit_account_id >= 1000000 OR w.debit_account_id = own.suspense)
                      AND w.credit_account_id = own.settlement
                  WHEN o.operation_kind IN (2, 3) THEN
                      w.debit_account_id = own.settlement AND w.credit_account_id >= 1000000
                  WHEN o.operation_kind = 5 THEN
                      (w.debit_account_id >= 1000000 OR w.debit_account_id = own.suspense)
                      AND w.credit_account_id >= 1000000
                  WHEN o.operation_kind = 11 THEN
                      w.debit_account_id = own.settlement
                      AND (w.credit_account_id >= 1000000 OR w.credit_account_id = own.suspense)
                  WHEN o.operation_kind = 13 THEN
                      w.debit_account_id = own.fund AND w.credit_account_id >= 1000000
                  ELSE (w.debit_account_id >= 1000000
                        OR w.debit_account_id IN (own.settlement, own.suspense, own.fund))
                       AND (w.credit_account_id >= 1000000
                            OR w.credit_account_id IN (own.settlement, own.suspense, own.fund))
              END) AS postings_misplaced
FROM decided AS d
FULL JOIN posted AS p ON p.operation_id = d.operation_id AND p.shard = d.shard
