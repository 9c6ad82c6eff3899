-- Tells whether a card was issued under a version of an issuer master key. No index: the first such card ends the search,
-- and only a version that no card names costs a look through the whole table: 14.5 GB for 45.9 million cards, 7 s when
-- they are in memory (measured with 2 million, 0.3 s), and as long as the disk takes to read that when they are not. Few
-- versions are ever destroyed; an index would be written at every issue.
-- Parameters: cipher, key version. Rows: one. Locks: none.
SELECT EXISTS (SELECT FROM cards WHERE cipher = $1::smallint AND ac_key_version = $2::smallint LIMIT 1)
