-- Counts and adds up the postings of a business date.
-- Parameters: $1 business date. Rows: one: number and sum of amount_minor. Locks: none.
SELECT count(*), coalesce(sum(amount_minor), 0)::bigint FROM postings WHERE business_date = $1::date
