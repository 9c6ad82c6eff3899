-- Reads what a batch decides on, in a statement of its own after the locks, so that it sees what their last holders
-- committed.
-- Parameters: $1 shard, $2 account ids (bigint[]), $3 request ids (uuid[]) to look for from business date $4 on, but not
--   on the present one, $5; $6 request ids (uuid[]) and $7 switch keys (bytea[]) to look for on that.
-- Rows: one: of the accounts (NULLs without any) ids, money posted and held, places (ctid); request ids that have a stored answer, switch keys in use with the kind of their holder, version of
--   the rules in force.
-- Locks: none; the cards' locks cover their accounts, and the same request id means the same card, so a twin has
--   committed or not begun. The look-up has no end: a twin may have been decided past a cut-off, by a worker with another
--   calendar too.
SELECT w.account_ids, w.posted_minor, w.held_minor, w.places,
       ARRAY(
           SELECT o.request_id::text
           FROM operations AS o
           WHERE o.request_id = ANY ($3::uuid[]) AND o.shard = $1::smallint
                 AND o.business_date >= $4::date AND o.business_date < $5::date
           UNION ALL
           SELECT o.request_id::text
           FROM operations AS o
           WHERE o.request_id = ANY ($3::uuid[]) AND o.shard = $1::smallint AND o.business_date > $5::date
           UNION ALL
           SELECT o.request_id::text
           FROM operations AS o
           WHERE o.request_id = ANY ($6::uuid[]) AND o.shard = $1::smallint AND o.business_date = $5::date
       ),
       ARRAY(
           SELECT ROW (o.switch_key, o.operation_kind)::switch_key_holder
           FROM operations AS o
           WHERE o.switch_key = ANY ($7::bytea[]) AND o.business_date = $5::date AND o.shard = $1::smallint
       ),
       (SELECT max(version) FROM rule_changes)
FROM (
    SELECT array_agg(a.account_id) AS account_ids, array_agg(a.posted_minor) AS posted_minor,
           array_agg(a.held_minor) AS held_minor, array_agg(a.ctid) AS places
    FROM accounts AS a
    WHERE a.account_id = ANY ($2::bigint[]) AND a.shard = $1::smallint
) AS w
