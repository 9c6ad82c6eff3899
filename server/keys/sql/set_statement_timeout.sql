-- Lets the statements of this transaction take longer than others may: for a look through whole tables.
-- Parameters: milliseconds as text. Rows: one. Locks: none.
SELECT set_config('statement_timeout', $1, true)
