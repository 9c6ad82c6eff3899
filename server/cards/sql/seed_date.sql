-- Gives the business date that opening balances are posted in.
-- Parameters: $1 today. Rows: one: today, or the date after the last closed one if that is later. Locks: none.
SELECT greatest($1::date, (SELECT max(business_date) + 1 FROM settlement_days WHERE closed_at IS NOT NULL))
