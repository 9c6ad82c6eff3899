-- Deletes tokens that expired, oldest first, and says how many.
-- Parameters: $1 rows at most (integer). Rows: one, the number deleted.
-- A batch judges a token by the time of its locks and reads this table later: the margin is longer than any batch.
-- Locks: the deleted rows of spent_tokens; rows locked by others are left for the next turn.
WITH expired AS (
    SELECT ctid FROM spent_tokens
    WHERE expires_at < now() - INTERVAL '1 minute'
    ORDER BY expires_at
    LIMIT $1::integer
    FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM spent_tokens WHERE ctid = ANY (ARRAY (SELECT ctid FROM expired)) RETURNING 1
)
SELECT count(*)::integer FROM deleted
