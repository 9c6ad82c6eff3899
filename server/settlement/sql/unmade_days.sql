-- Lists closed business dates whose files are not all made.
-- Parameters: none. Rows: dates, ascending. Locks: none.
SELECT business_date
FROM settlement_days AS d
WHERE closed_at IS NOT NULL AND NOT EXISTS (SELECT FROM made_days AS m WHERE m.business_date = d.business_date)
ORDER BY business_date
