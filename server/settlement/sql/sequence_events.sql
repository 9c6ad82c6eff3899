-- Numbers the batches that were committed and have no number yet.
-- Parameters: $1 batches at most, $2 whether to look for those too that the clock put where nothing is expected any more.
-- Rows: one: the number of the last event.
-- Locks: the advisory lock of the sequencer, if it is free; event_batches and event_head under it.
SELECT sequence_events($1::integer, $2::boolean)
