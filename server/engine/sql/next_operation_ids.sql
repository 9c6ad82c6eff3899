-- Takes a block of 10000 operation ids and gives the first.
-- Parameters: none. Rows: one. Locks: none.
SELECT nextval('operation_id_blocks') * 10000
