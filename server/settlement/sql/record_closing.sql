-- Records the files of a closed date; those that are recorded stay.
-- Parameters: $1 business date, $2 participant, $3 number of operations, $4 manifest. Rows: none. Locks: none.
INSERT INTO closings (business_date, participant_id, operation_count, manifest, manifest_sha256)
VALUES ($1::date, $2, $3, $4::text, sha256(convert_to($4::text, 'UTF8')))
ON CONFLICT ON CONSTRAINT closings_pkey DO NOTHING
