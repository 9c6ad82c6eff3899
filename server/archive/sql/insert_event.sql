-- Records what happened to a generation of a business date.
-- Parameters: $1 business date, $2 generation, $3 ARCHIVED or RESTORED. Rows: none. Locks: the new row.
INSERT INTO archive_events (business_date, generation, event) VALUES ($1::date, $2::integer, $3)
