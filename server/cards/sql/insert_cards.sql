-- Writes new cards with holder, state, wallet and credentials, in one statement.
-- Parameters: $1 shard; $2-$4 holders: id, sealed name, sealed identity number;
--   $5-$19 cards: id, account, region, cipher, versions of the AC and of the social-security key, PSN, last four of
--     the PAN, ATR, alias, name index, expiry, sealed PAN, sealed card number, sealed identification code;
--   $20-$22 state: status, limit of one purchase, limit of a day; $23-$24 credentials: blind index, card.
-- Rows: none. Locks: none; a credential that is taken violates card_credentials_pkey.
WITH holders AS (
    INSERT INTO cardholders (cardholder_id, name_sealed, identity_number_sealed, shard)
    SELECT n.*, $1::smallint FROM unnest($2::bigint[], $3::bytea[], $4::bytea[]) AS n
), written AS (
    INSERT INTO cards (cardholder_id, card_id, account_id, issuing_region, cipher, ac_key_version,
                       ss_key_version, psn, pan_last4, atr_historical_bytes, card_alias, name_index, expires_on,
                       pan_sealed, card_number_sealed, identification_code_sealed, shard)
    SELECT n.*, $1::smallint
    FROM unnest($2::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::smallint[], $9::smallint[],
                $10::smallint[], $11::text[], $12::text[], $13::bytea[], $14::bytea[], $15::bytea[], $16::date[],
                $17::bytea[], $18::bytea[], $19::bytea[]) AS n
), states AS (
    INSERT INTO card_states (card_id, status, transaction_amount_max_minor, day_amount_max_minor, shard)
    SELECT n.*, $1::smallint FROM unnest($5::bigint[], $20::smallint[], $21::bigint[], $22::bigint[]) AS n
), wallets AS (
    INSERT INTO accounts (account_id, card_id, shard)
    SELECT n.*, $1::smallint FROM unnest($6::bigint[], $5::bigint[]) AS n
)
INSERT INTO card_credentials (credential_index, card_id, shard)
SELECT n.*, $1::smallint FROM unnest($23::bytea[], $24::bigint[]) AS n
