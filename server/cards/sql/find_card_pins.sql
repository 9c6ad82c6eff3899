-- Reads what the PINs of cards are verified against.
-- Parameters: $1 card ids (bigint[]), $2 shard. Rows: one for each card that has a PIN.
-- Locks: none; the cards' locks cover their PINs.
SELECT card_id, pvk_version, reference_sealed, unblocks
FROM card_pins
WHERE card_id = ANY ($1::bigint[]) AND shard = $2::smallint
