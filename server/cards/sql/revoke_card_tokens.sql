-- Ends tokens of cards.
-- Parameters: $1 shard, $2 time of revocation, $3 blind indexes (bytea[]). Rows: none.
-- Locks: the tokens' rows, which only holders of the cards' locks change.
UPDATE card_tokens
SET revoked_at = $2::timestamptz
WHERE token_index = ANY ($3::bytea[]) AND shard = $1::smallint
