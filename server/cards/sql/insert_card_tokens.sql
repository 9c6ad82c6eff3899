-- Lets tokens name cards.
-- Parameters: $1 shard, $2 time of registration, $3 blind indexes (bytea[]), $4 card ids (bigint[]), $5 participants
--   (text[]).
-- Rows: none.
-- Locks: none beyond the card locks that the batch holds; a token that is taken violates card_credentials_pkey.
WITH tokens AS (
    SELECT n.* FROM unnest($3::bytea[], $4::bigint[], $5::text[]) AS n (token_index, card_id, participant_id)
), named AS (
    INSERT INTO card_credentials (credential_index, card_id, shard)
    SELECT token_index, card_id, $1::smallint FROM tokens
)
INSERT INTO card_tokens (token_index, shard, card_id, participant_id, registered_at)
SELECT token_index, $1::smallint, card_id, participant_id, $2::timestamptz FROM tokens
