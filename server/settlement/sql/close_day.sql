-- Closes a business date whose lock is held, if positions hold all events of it and of the dates before, which are closed
-- themselves. A statement of its own after the lock, so that it sees what the last writers committed.
-- Parameters: $1 business date. Rows: one when it was closed now; else none. Locks: the row of the date.
UPDATE settlement_days
SET closed_at = clock_timestamp()
WHERE business_date = $1::date AND closed_at IS NULL
      AND NOT EXISTS (SELECT FROM event_batches WHERE sequence IS NULL AND business_date <= $1::date)
      AND NOT EXISTS (
          SELECT FROM event_batches
          WHERE sequence > (SELECT through_sequence FROM position_watermark) AND business_date <= $1::date
      )
      AND NOT EXISTS (SELECT FROM settlement_days WHERE business_date < $1::date AND closed_at IS NULL)
RETURNING business_date
