-- Tells which generation the next archive of a business date is.
-- Parameters: $1 business date. Rows: one. Locks: none.
SELECT coalesce(max(generation), 0) + 1 FROM archives WHERE business_date = $1::date
