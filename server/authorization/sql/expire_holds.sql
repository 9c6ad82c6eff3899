-- Ends the holds of locked cards whose time is over, and frees the money; a hold that was completed meanwhile is left alone.
-- Parameters: $1 shard, $2 card ids (bigint[]). Rows: one: the number of holds that were ended.
-- Locks: none beyond the card locks, which the caller holds; a statement of its own after them, so that it sees what their
--   last holders committed.
WITH due AS (
    SELECT hold_id, account_id, held_minor
    FROM holds
    WHERE card_id = ANY ($2::bigint[]) AND shard = $1::smallint AND state = 1 AND expires_at <= statement_timestamp()
), ended AS (
    UPDATE holds AS h
    SET state = 5, held_minor = 0
    FROM due
    WHERE h.hold_id = due.hold_id AND h.shard = $1::smallint
), freed AS (
    UPDATE accounts AS a
    SET held_minor = a.held_minor - s.held_minor
    FROM (SELECT account_id, sum(held_minor) AS held_minor FROM due GROUP BY account_id) AS s
    WHERE a.account_id = s.account_id AND a.shard = $1::smallint
)
SELECT count(*) FROM due
