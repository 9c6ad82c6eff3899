-- Lists the columns of a table, by name.
-- Parameters: $1 table. Rows: one for each column. Locks: none.
SELECT attname::text FROM pg_attribute
WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
ORDER BY attname
