-- Records a file.
-- Parameters: $1 business date, $2 generation, $3 table, $4 schema version, $5 rows, $6 sum, $7 digest, $8 file name,
--   $9 its bytes. Rows: none. Locks: the new row.
INSERT INTO archives (business_date, generation, table_name, schema_version, row_count, amount_minor, digest_sha256,
                      file_name, file_bytes)
VALUES ($1::date, $2::integer, $3, $4::integer, $5::bigint, $6::bigint, $7, $8, $9::bigint)
