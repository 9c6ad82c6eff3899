-- Finds a participant's closing of a business date.
-- Parameters: $1 participant, $2 business date. Rows: one, or none: manifest and its digest. Locks: none.
SELECT manifest, manifest_sha256 FROM closings WHERE participant_id = $1 AND business_date = $2::date
