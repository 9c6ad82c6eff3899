-- Writes how much of operations was taken back, new and changed rows.
-- Parameters: $1 shard; $2-$5 one array each of operation ids, approved, reversed and refunded amounts (bigint[]).
-- Rows: none. Locks: none beyond the card locks that the batch holds.
INSERT INTO adjustments (operation_id, approved_minor, reversed_minor, refunded_minor, shard)
SELECT n.*, $1::smallint FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n
ON CONFLICT ON CONSTRAINT adjustments_pkey
DO UPDATE SET reversed_minor = excluded.reversed_minor, refunded_minor = excluded.refunded_minor
