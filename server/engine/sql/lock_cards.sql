-- Locks the card rows of a batch.
-- Parameters: $1 card ids (bigint[]), $2 shard. Rows: one for each card that exists.
-- Locks: card_states, in ascending card id. Whoever holds a card's lock may read and write its accounts.
SELECT card_id, status, atc_highest, atc_window, transaction_amount_max_minor, day_amount_max_minor, day,
       day_amount_minor
FROM card_states
WHERE card_id = ANY ($1::bigint[]) AND shard = $2::smallint
ORDER BY card_id
FOR NO KEY UPDATE
