-- Locks those card rows of a batch that nobody holds, and tells the database's time after the last lock was taken.
-- Parameters: $1 card ids (bigint[]), $2 shard. Rows: as of lock_cards, without the cards that somebody else holds.
-- Locks: card_states; it never waits, so that their order does not matter.
SELECT extract(EPOCH FROM clock_timestamp())::double precision, c.*
FROM (SELECT 1) AS always
LEFT JOIN LATERAL (
    SELECT card_id, status, atc_highest, atc_window, transaction_amount_max_minor, day_amount_max_minor,
           pin_tries, usage
    FROM card_states
    WHERE card_id = ANY ($1::bigint[]) AND shard = $2::smallint
    ORDER BY card_id
    FOR NO KEY UPDATE SKIP LOCKED
) AS c ON true
