-- Checks the numbers of events: from 1 on without a gap and none twice, up to the last one that was given.
-- Parameters: none. Rows: one: how many batches do not follow the one before, plus one when the last is not the last.
-- Locks: none.
SELECT count(*) FILTER (WHERE sequence <> expected)
       + CASE WHEN coalesce(max(last_sequence), 0) = (SELECT last_sequence FROM event_head) THEN 0 ELSE 1 END
FROM (
    SELECT sequence, sequence + operation_count - 1 AS last_sequence,
           coalesce(lag(sequence + operation_count) OVER (ORDER BY sequence), 1) AS expected
    FROM event_batches
    WHERE sequence IS NOT NULL
) AS numbered
