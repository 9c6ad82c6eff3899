-- Counts and adds up the operations of a business date.
-- Parameters: $1 business date. Rows: one: number and sum of amount_minor. Locks: none.
SELECT count(*), coalesce(sum(amount_minor), 0)::bigint FROM operations WHERE business_date = $1::date
