-- Writes everything a batch decided, in one statement.
-- Parameters: $1 shard, $2 business date, $3 decided at;
--   $4-$9 changed cards: id, status, highest ATC, ATC window, day, day's amount;
--   $10-$12 changed accounts: id, posted, held;
--   $13-$27 operations: id, request id, card, amount, terminal time, STAN, kind, MTI class, reason, participant,
--     terminal, merchant, response code, digest, response;
--   $28-$32 postings: operation id, number, debit account, credit account, amount;
--   $33-$40 access entries: participant, terminal, kind, request id, card, item, version, reason.
-- Rows: none. Locks: none beyond the card locks that the batch holds.
WITH cards AS (
    UPDATE card_states AS c
    SET status = n.status, atc_highest = n.atc_highest, atc_window = n.atc_window, day = n.day,
        day_amount_minor = n.day_amount_minor
    FROM unnest($4::bigint[], $5::smallint[], $6::integer[], $7::bigint[], $8::date[], $9::bigint[])
         AS n (card_id, status, atc_highest, atc_window, day, day_amount_minor)
    WHERE c.card_id = n.card_id AND c.shard = $1::smallint
), wallets AS (
    UPDATE accounts AS a
    SET posted_minor = n.posted_minor, held_minor = n.held_minor
    FROM unnest($10::bigint[], $11::bigint[], $12::bigint[]) AS n (account_id, posted_minor, held_minor)
    WHERE a.account_id = n.account_id AND a.shard = $1::smallint
), moved AS (
    INSERT INTO postings (operation_id, posting_number, debit_account_id, credit_account_id, amount_minor,
                          business_date, shard)
    SELECT n.*, $2::date, $1::smallint
    FROM unnest($28::bigint[], $29::smallint[], $30::bigint[], $31::bigint[], $32::bigint[]) AS n
), accessed AS (
    INSERT INTO access_blocks (shard, recorded_at, participant_ids, terminal_ids, operation_kinds, request_ids,
                               card_ids, catalogue_items, catalogue_item_versions, reasons)
    SELECT $1::smallint, $3::timestamptz, $33::text[], $34::text[], $35::smallint[], $36::uuid[], $37::bigint[],
           $38::text[], $39::integer[], $40::smallint[]
    WHERE cardinality($33::text[]) > 0
)
INSERT INTO operations (operation_id, request_id, card_id, amount_minor, terminal_time_unix_ms, stan,
                        operation_kind, mti_class, reason, participant_id, terminal_id, merchant_id,
                        response_code, request_digest, response, decided_at, business_date, shard)
SELECT n.*, $3::timestamptz, $2::date, $1::smallint
FROM unnest($13::bigint[], $14::uuid[], $15::bigint[], $16::bigint[], $17::bigint[], $18::integer[],
            $19::smallint[], $20::smallint[], $21::smallint[], $22::text[], $23::text[], $24::text[],
            $25::text[], $26::bytea[], $27::bytea[]) AS n
