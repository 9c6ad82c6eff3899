-- Lists files with what happened to them last, by date, generation and table.
-- Parameters: $1 business date, or NULL for all; $2 file name, or NULL for all. Rows: one for each file. Locks: none.
SELECT a.business_date, a.generation, a.table_name, a.schema_version, a.row_count, a.amount_minor, a.digest_sha256,
       a.file_name, a.file_bytes, a.archived_at,
       EXISTS (
           SELECT FROM archive_events AS e
           WHERE e.business_date = a.business_date AND e.generation = a.generation AND e.event = 'RESTORED'
       ) AS is_restored
FROM archives AS a
WHERE ($1::date IS NULL OR a.business_date = $1::date) AND ($2::text IS NULL OR a.file_name = $2::text)
ORDER BY a.business_date, a.generation, a.table_name
