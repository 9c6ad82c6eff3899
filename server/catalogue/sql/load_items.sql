-- Reads every item version and whether it is in force by the database's clock.
-- Parameters: none. Rows: one for each item version. Locks: none.
SELECT catalogue_item, version,
       valid_from <= clock_timestamp() AND (valid_until IS NULL OR valid_until > clock_timestamp()) AS in_force
FROM catalogue_items
