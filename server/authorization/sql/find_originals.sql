-- Finds operations that others follow, by request id, by operation id or by switch key.
-- Parameters: $1 shard, $2 request ids (uuid[]), $3 operation ids (bigint[]), $4-$5 switch keys (bytea[]) and
--   their business dates (date[]). Rows: one for each that exists; one that is named twice
--   may come twice. What a suspense account paid of it, and where its first posting went, come from its postings.
-- Locks: none; the follower's card is locked, and a follower is of its original's card.
WITH found AS (
    SELECT o.* FROM operations AS o WHERE o.request_id = ANY ($2::uuid[]) AND o.shard = $1::smallint
    UNION ALL
    SELECT o.* FROM operations AS o WHERE o.operation_id = ANY ($3::bigint[]) AND o.shard = $1::smallint
    UNION ALL
    SELECT o.*
    FROM unnest($4::bytea[], $5::date[]) AS k (switch_key, business_date)
    JOIN operations AS o ON o.switch_key = k.switch_key AND o.business_date = k.business_date AND o.shard = $1::smallint
)
SELECT o.operation_id, o.request_id::text, o.operation_kind, o.response_code,
       coalesce(o.approved_minor, o.amount_minor, 0), o.account_id, o.card_id, o.participant_id, o.switch_key,
       o.business_date, o.original_operation_id, o.channel, o.decided_at, coalesce(p.suspense_minor, 0),
       p.credit_account_id
FROM found AS o
LEFT JOIN LATERAL (
    SELECT sum(p.amount_minor) FILTER (WHERE p.debit_account_id BETWEEN 400001 AND 699999)::bigint AS suspense_minor,
           min(p.credit_account_id) FILTER (WHERE p.posting_number = 1) AS credit_account_id
    FROM postings AS p
    WHERE p.operation_id = o.operation_id AND p.business_date = o.business_date AND p.shard = o.shard
) AS p ON true
