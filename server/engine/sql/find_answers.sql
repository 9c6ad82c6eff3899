-- Finds the stored answers of request ids.
-- Parameters: $1 request ids (uuid[]), $2 shard, $3 first business date of the look-back. Rows: one for each id found.
-- Locks: none; it runs after the card locks, and the same id means the same card, so a twin has committed or not begun.
SELECT request_id::text, participant_id, operation_kind, card_id, amount_minor, terminal_id, merchant_id, stan,
       terminal_time_unix_ms, account_id, request_digest, response
FROM operations
WHERE request_id = ANY ($1::uuid[]) AND shard = $2::smallint AND business_date >= $3::date
