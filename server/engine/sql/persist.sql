-- Writes everything a batch decided in one shard, in one statement.
-- Parameters: $1 shard, $2 business date, $3 decided at, $4 changed cards (card_change[]), $5 changed accounts
--   (account_change[]), $6 operations (operation_row[], in ascending id), $7 postings (posting_row[]); $8-$15 one array
--   each of the access entries' participants, terminals, kinds, request ids, cards, items, versions and reasons;
--   $16-$18 first and last operation id and number of the operations, 0 for none; $19, $20 the places (ctid) of the changed
--   cards and accounts: under the cards' locks both stay where they were read, so that no index has to be searched for
--   them again.
-- Rows: one: how many cards and accounts were found in their places. Locks: none beyond the card locks that the batch
--   holds.
WITH cards AS (
    UPDATE card_states AS c
    SET status = n.status, atc_highest = n.atc_highest, atc_window = n.atc_window, pin_tries = n.pin_tries,
        usage = n.usage
    FROM unnest($4::card_change[], $19::tid[])
         AS n (card_id, status, atc_highest, atc_window, pin_tries, usage, place)
    WHERE c.ctid = n.place AND c.card_id = n.card_id AND c.shard = $1::smallint
    RETURNING 1
), wallets AS (
    UPDATE accounts AS a
    SET posted_minor = n.posted_minor, held_minor = n.held_minor
    FROM unnest($5::account_change[], $20::tid[]) AS n (account_id, posted_minor, held_minor, place)
    WHERE a.ctid = n.place AND a.account_id = n.account_id AND a.shard = $1::smallint
    RETURNING 1
), moved AS (
    INSERT INTO postings (operation_id, posting_number, debit_account_id, credit_account_id, amount_minor,
                          business_date, shard)
    SELECT n.*, $2::date, $1::smallint FROM unnest($7::posting_row[]) AS n
), accessed AS (
    INSERT INTO access_blocks (shard, recorded_at, participant_ids, terminal_ids, operation_kinds, request_ids,
                               card_ids, catalogue_items, catalogue_item_versions, reasons)
    SELECT $1::smallint, $3::timestamptz, $8::text[], $9::text[], $10::smallint[], $11::uuid[], $12::bigint[],
           $13::text[], $14::integer[], $15::smallint[]
    WHERE cardinality($8::text[]) > 0
), announced AS (
    INSERT INTO event_batches (first_operation_id, last_operation_id, operation_count, business_date, decided_at, shard)
    SELECT $16::bigint, $17::bigint, $18::integer, $2::date, $3::timestamptz, $1::smallint
    WHERE $18::integer > 0
), stored AS (
    INSERT INTO operations (operation_id, request_id, card_id, amount_minor, terminal_time_unix_ms, stan,
                            operation_kind, mti_class, reason, participant_id, terminal_id, merchant_id,
                            response_code, request_digest, response, account_id, approved_minor, original_operation_id,
                            channel, flags, switch_key, decided_at, business_date, shard)
    SELECT n.*, $3::timestamptz, $2::date, $1::smallint FROM unnest($6::operation_row[]) AS n
)
SELECT (SELECT count(*) FROM cards), (SELECT count(*) FROM wallets)
