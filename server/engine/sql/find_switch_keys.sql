-- Finds switch keys that another request has used on the business date.
-- Parameters: $1 terminal ids (text[]), $2 STANs (integer[]), $3 participant ids (text[]),
-- $4 MTI classes (smallint[]), $5 business date, $6 shard. Rows: one for each key found.
-- Locks: none.
SELECT o.terminal_id, o.stan, o.participant_id, o.mti_class
FROM unnest($1::text[], $2::integer[], $3::text[], $4::smallint[])
     AS k (terminal_id, stan, participant_id, mti_class)
JOIN operations AS o
    ON o.terminal_id = k.terminal_id AND o.stan = k.stan AND o.participant_id = k.participant_id
       AND o.mti_class = k.mti_class AND o.business_date = $5::date AND o.shard = $6::smallint
WHERE o.stan IS NOT NULL
