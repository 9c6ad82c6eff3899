-- Locks the card rows of a batch and tells the database's time after the last lock was taken.
-- Parameters: $1 card ids (bigint[]), $2 shard. Rows: one for each card that exists, one with NULLs when none does;
--   the time (unix seconds) of the last row counts. ctid is the row's place, which a lock keeps it in.
-- Locks: card_states, in ascending card id. Whoever holds a card's lock may read and write its accounts.
SELECT extract(EPOCH FROM clock_timestamp())::double precision, c.*
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT card_id, status, atc_highest, atc_window, transaction_amount_max_minor, day_amount_max_minor,
           pin_tries, usage, ctid
    FROM card_states
    WHERE card_id = ANY ($1::bigint[]) AND shard = $2::smallint
    ORDER BY card_id
    FOR NO KEY UPDATE
) AS c ON true
