-- Gives cards a PIN, in place of the one they had.
-- Parameters: $1 shard, $2 time of change, $3 card ids (bigint[]), $4 versions of the verification key (smallint[]),
--   $5 sealed references (bytea[]). Rows: none. Locks: none beyond the card locks that the batch holds.
INSERT INTO card_pins (card_id, pvk_version, reference_sealed, changed_at, shard)
SELECT n.*, $2::timestamptz, $1::smallint FROM unnest($3::bigint[], $4::smallint[], $5::bytea[]) AS n
ON CONFLICT ON CONSTRAINT card_pins_pkey
DO UPDATE SET pvk_version = excluded.pvk_version, reference_sealed = excluded.reference_sealed,
              changed_at = excluded.changed_at
