-- Reads what a batch decides on, in a statement of its own after the locks, so that it sees what their last holders
-- committed.
-- Parameters: $1 shard, $2 account ids (bigint[]), $3 request ids (uuid[]), $4 first business date of the look-back,
--   $5 business date, $6-$9 switch keys: terminals (text[]), STANs (integer[]), participants (text[]), MTI classes
--   (smallint[]).
-- Rows: one: of the accounts (NULLs without any) ids, money posted and held, places (ctid); request ids that have a
--   stored answer; positions (from 1) of switch keys in use.
-- Locks: none; the cards' locks cover their accounts, and the same request id means the same card, so a twin has
--   committed or not begun. LATERAL with LIMIT: one index search for each key, also on a fresh partition, where a join
--   would read it whole. The look-back has no end: a twin may have been decided past
--   a cut-off, by a worker with another calendar too.
SELECT w.account_ids, w.posted_minor, w.held_minor, w.places,
       ARRAY(
           SELECT o.request_id::text
           FROM operations AS o
           WHERE o.request_id = ANY ($3::uuid[]) AND o.shard = $1::smallint AND o.business_date >= $4::date
       ),
       ARRAY(
           SELECT k.position
           FROM unnest($6::text[], $7::integer[], $8::text[], $9::smallint[])
                WITH ORDINALITY AS k (terminal_id, stan, participant_id, mti_class, position)
           CROSS JOIN LATERAL (
               SELECT 1
               FROM operations AS o
               WHERE o.terminal_id = k.terminal_id AND o.stan = k.stan AND o.participant_id = k.participant_id
                     AND o.mti_class = k.mti_class AND o.business_date = $5::date AND o.shard = $1::smallint
               LIMIT 1
           ) AS used
       )
FROM (
    SELECT array_agg(a.account_id) AS account_ids, array_agg(a.posted_minor) AS posted_minor,
           array_agg(a.held_minor) AS held_minor, array_agg(a.ctid) AS places
    FROM accounts AS a
    WHERE a.account_id = ANY ($2::bigint[]) AND a.shard = $1::smallint
) AS w
