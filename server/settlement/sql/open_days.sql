-- Lists business dates with events that are not closed, of which nothing was decided lately.
-- Parameters: $1 seconds of quiet. Rows: dates, ascending, each with the database's time. Locks: none.
SELECT d.business_date, clock_timestamp() AS now
FROM settlement_days AS d
WHERE d.closed_at IS NULL
      AND NOT EXISTS (
          SELECT FROM event_batches AS b
          WHERE b.sequence > d.last_sequence - 100000 AND b.business_date = d.business_date
                AND b.decided_at > clock_timestamp() - make_interval(secs => $1::double precision)
      )
ORDER BY d.business_date
