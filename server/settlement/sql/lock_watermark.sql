-- Takes the turn to roll up positions, and closes the way of whole partitions to the statement that follows.
-- Parameters: none. Rows: one: the number up to which positions are rolled up.
-- Locks: the row of position_watermark, until the transaction ends.
SELECT through_sequence, set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('plan_cache_mode', 'force_generic_plan', true)
FROM position_watermark
FOR NO KEY UPDATE
