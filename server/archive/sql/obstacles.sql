-- Tells what still needs the rows of a business date.
-- Parameters: $1 business date. Rows: one: a hold of it is pending, events of it have no number, it is not settled.
-- Locks: none.
SELECT EXISTS (
           SELECT FROM holds AS h
           JOIN operations AS o ON o.operation_id = h.hold_id AND o.shard = h.shard
           WHERE h.state = 1 AND o.business_date = $1::date
       ) AS has_pending_holds,
       EXISTS (SELECT FROM event_batches WHERE sequence IS NULL AND business_date = $1::date) AS has_waiting_events,
       EXISTS (SELECT FROM operations WHERE business_date = $1::date) AND NOT is_settled($1::date) AS is_unsettled
