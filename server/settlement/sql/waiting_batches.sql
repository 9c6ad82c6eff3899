-- Tells whether batches wait for their number.
-- Parameters: none. Rows: one: true or false. Locks: none.
SELECT EXISTS (SELECT FROM event_batches WHERE sequence IS NULL)
