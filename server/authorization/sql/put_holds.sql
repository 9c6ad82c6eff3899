-- Writes holds as they are decided, new and changed ones.
-- Parameters: $1 shard; $2-$9 one array each of hold ids, cards, accounts, states (smallint[]), authorized, held and
--   captured amounts (bigint[]) and expiries (timestamptz[]). Rows: none.
-- Locks: none beyond the card locks that the batch holds.
INSERT INTO holds (hold_id, card_id, account_id, state, authorized_minor, held_minor, captured_minor, expires_at, shard)
SELECT n.*, $1::smallint
FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::smallint[], $6::bigint[], $7::bigint[], $8::bigint[],
            $9::timestamptz[]) AS n
ON CONFLICT ON CONSTRAINT holds_pkey
DO UPDATE SET state = excluded.state, authorized_minor = excluded.authorized_minor, held_minor = excluded.held_minor,
              captured_minor = excluded.captured_minor, expires_at = excluded.expires_at
