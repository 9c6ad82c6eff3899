-- Gives cards a PIN, in place of the one they had.
-- Parameters: $1 shard, $2 time of change, $3 card ids (bigint[]), $4 versions of the verification key (smallint[]),
--   $5 sealed references (bytea[]), $6 unblockings since the PIN was last right (smallint[]). Rows: none. Locks: none beyond the card locks that the batch holds.
INSERT INTO card_pins (card_id, pvk_version, reference_sealed, unblocks, changed_at, shard)
SELECT n.*, $2::timestamptz, $1::smallint
FROM unnest($3::bigint[], $4::smallint[], $5::bytea[], $6::smallint[]) AS n
ON CONFLICT ON CONSTRAINT card_pins_pkey
DO UPDATE SET pvk_version = excluded.pvk_version, reference_sealed = excluded.reference_sealed,
              unblocks = excluded.unblocks, changed_at = excluded.changed_at
