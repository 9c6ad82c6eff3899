-- Finds the last event of a business date that is not online. Around a cut-off events of the next date may come before it.
-- Parameters: none. Rows: one: its number, or 0. Locks: none.
SELECT coalesce(max(last_sequence), 0)
FROM settlement_days
WHERE to_regclass('operations_' || to_char(business_date, 'YYYYMMDD')) IS NULL
      OR NOT EXISTS (
          SELECT FROM pg_inherits
          WHERE inhrelid = to_regclass('operations_' || to_char(business_date, 'YYYYMMDD'))
      )
