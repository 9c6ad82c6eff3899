-- Tells whether the PIN of a card is verified under a version of the PIN verification key. Searched as in
-- find_card_of_ac_key, in a table a third as wide.
-- Parameters: key version. Rows: one. Locks: none.
SELECT EXISTS (SELECT FROM card_pins WHERE pvk_version = $1::smallint LIMIT 1)
