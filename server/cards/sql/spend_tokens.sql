-- Marks tokens as used.
-- Parameters: $1 token digests (bytea[]), $2 expiries (timestamptz[]), $3 shard. Rows: none.
-- Locks: none; the second of two writers violates spent_tokens_pkey.
INSERT INTO spent_tokens (token_digest, expires_at, shard)
SELECT n.*, $3::smallint FROM unnest($1::bytea[], $2::timestamptz[]) AS n
