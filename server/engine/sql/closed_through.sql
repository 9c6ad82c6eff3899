-- Finds the newest closed business date; no batch may write operations of it or of one before.
-- Parameters: none. Rows: one: the date, or the first of all dates when none is closed. Locks: none.
SELECT coalesce(max(business_date), date '0001-01-01') FROM settlement_days WHERE closed_at IS NOT NULL
