-- Finds the unchanging facts of cards by blind index.
-- Parameters: $1 blind indexes (bytea[]). Rows: one for each index that names a card.
-- In the order of the cards, because indexes are random and neighbouring cards share pages: a quarter less time. OFFSET
-- keeps the order before the join.
-- Locks: none.
SELECT k.credential_index, c.card_id, c.shard, c.account_id, c.issuing_region, c.cipher, c.ac_key_version, c.ss_key_version,
       c.psn, c.atr_historical_bytes, c.card_alias, c.name_index, c.expires_on
FROM (
    SELECT credential_index, card_id, shard
    FROM card_credentials
    WHERE credential_index = ANY ($1::bytea[])
    ORDER BY card_id
    OFFSET 0
) AS k
JOIN cards AS c ON c.card_id = k.card_id AND c.shard = k.shard
