-- Takes the numbers of new cards, accounts and holders.
-- Parameters: $1 count. Rows: $1. Locks: none.
SELECT nextval('card_ids'), nextval('account_ids'), nextval('cardholder_ids')
FROM generate_series(1, $1::integer)
