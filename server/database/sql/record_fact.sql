-- Records what a database was made for, unless that is recorded already.
-- Parameters: $1 fact, $2 value. Rows: none. Locks: the new row; waits for another that records the same fact.
INSERT INTO database_facts (fact, value) VALUES ($1, $2)
ON CONFLICT ON CONSTRAINT database_facts_pkey DO NOTHING
