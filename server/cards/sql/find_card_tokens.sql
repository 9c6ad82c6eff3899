-- Reads whether participants' tokens of cards are in force.
-- Parameters: $1 blind indexes (bytea[]), $2 shard. Rows: one for each that was ever registered.
-- Locks: none; the cards' locks cover their tokens.
SELECT token_index, card_id, revoked_at IS NOT NULL
FROM card_tokens
WHERE token_index = ANY ($1::bytea[]) AND shard = $2::smallint
