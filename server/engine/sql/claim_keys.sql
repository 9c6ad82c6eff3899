-- Lets one transaction at a time decide on each key, whatever shard its cards are in.
-- Parameters: $1 numbers of the keys (bigint[]), ascending. Rows: one for each.
-- Locks: advisory ones until the transaction ends, ascending and before all card locks.
SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key
