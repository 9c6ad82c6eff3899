-- Notes that all files of a closed business date are made.
-- Parameters: $1 business date. Rows: none. Locks: none.
INSERT INTO made_days (business_date) VALUES ($1::date) ON CONFLICT ON CONSTRAINT made_days_pkey DO NOTHING
