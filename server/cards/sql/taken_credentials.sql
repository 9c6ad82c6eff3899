-- Finds which credentials already name a card.
-- Parameters: $1 blind indexes (bytea[]). Rows: one for each that is taken. Locks: none.
SELECT credential_index FROM card_credentials WHERE credential_index = ANY ($1::bytea[])
