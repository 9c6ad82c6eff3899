-- Tells whether a card was issued under a version of a master key of the social-security application. Searched, and at the
-- cost, as in find_card_of_ac_key.
-- Parameters: cipher, key version. Rows: one. Locks: none.
SELECT EXISTS (SELECT FROM cards WHERE cipher = $1::smallint AND ss_key_version = $2::smallint LIMIT 1)
