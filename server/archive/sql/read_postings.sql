-- Reads the postings of a business date in canonical form: dates in days since 1970.
-- Parameters: $1 business date. Rows: one for each, in ascending operation and number. Locks: none.
SELECT operation_id, posting_number, debit_account_id, credit_account_id, amount_minor,
       business_date - date '1970-01-01' AS business_date, shard
FROM postings
WHERE business_date = $1::date
ORDER BY operation_id, posting_number, shard
