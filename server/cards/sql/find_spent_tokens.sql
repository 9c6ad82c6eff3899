-- Finds which tokens were used before.
-- Parameters: $1 token digests (bytea[]), $2 shard. Rows: one for each used token.
-- Locks: none; a token that another batch uses meanwhile, with another card, violates spent_tokens_pkey there or here.
SELECT token_digest FROM spent_tokens WHERE token_digest = ANY ($1::bytea[]) AND shard = $2::smallint
