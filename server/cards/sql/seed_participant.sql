-- Makes the participant whose settlement account opening balances come from; it can never call.
-- Parameters: none. Rows: none. Locks: none.
INSERT INTO participants (participant_id, name, kind, state)
VALUES ('opening-balances', 'Opening balances', 'operator', 'suspended')
ON CONFLICT (participant_id) DO NOTHING
