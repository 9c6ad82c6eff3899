-- Finds a closed business date.
-- Parameters: $1 business date. Rows: one, or none: first and last sequence, when it was closed. Locks: none.
SELECT first_sequence, last_sequence, closed_at
FROM settlement_days
WHERE business_date = $1::date AND closed_at IS NOT NULL
