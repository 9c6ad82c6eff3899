-- Reads the events of a range of sequence numbers, each batch by the index of operation ids in its date's partition.
-- Parameters: $1 after this number, $2 through this number (at most the last one given), $3 participant or NULL, $4 kinds
--   (smallint[]) or NULL.
-- Rows: in order of sequence: sequence of the batch, its number of operations, how many of them are online, whether this
--   row is asked for, then the event. The first row of each batch comes whether it is asked for or not, so that what is
--   missing shows. LATERAL with a window: the batches are gone through one by one, whatever statistics say.
-- Locks: none.
SELECT b.sequence AS batch_sequence, b.operation_count, e.online, e.is_asked_for, e.sequence, e.operation_id,
       e.request_id, e.operation_kind, e.response_code, e.reason, e.amount_minor, e.approved_minor, b.business_date,
       b.decided_at, e.original_operation_id, e.terminal_id, e.merchant_id, e.stan, e.participant_id, e.card_id, e.flags
FROM event_batches AS b
CROSS JOIN LATERAL (
    SELECT n.*,
           n.sequence BETWEEN $1::bigint + 1 AND $2::bigint AND n.operation_kind <> 15
           AND ($3::text IS NULL OR n.participant_id = $3)
           AND ($4::smallint[] IS NULL OR n.operation_kind = ANY ($4)) AS is_asked_for
    FROM (
        SELECT b.sequence + row_number() OVER (ORDER BY o.operation_id) - 1 AS sequence, count(*) OVER () AS online,
               o.operation_id, o.request_id, o.operation_kind, o.response_code, o.reason, o.amount_minor,
               o.approved_minor, o.original_operation_id, o.terminal_id, o.merchant_id, o.stan, o.participant_id,
               o.card_id, o.flags
        FROM operations AS o
        WHERE o.operation_id BETWEEN b.first_operation_id AND b.last_operation_id AND o.shard = b.shard
              AND o.business_date = b.business_date
    ) AS n
) AS e
WHERE b.sequence >= coalesce(
          (SELECT s.sequence FROM event_batches AS s WHERE s.sequence <= $1::bigint + 1 ORDER BY s.sequence DESC LIMIT 1),
          $1::bigint + 1)
      AND b.sequence <= $2::bigint
      AND (e.is_asked_for OR e.sequence = b.sequence)
ORDER BY e.sequence
