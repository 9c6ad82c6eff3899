-- Settlement: events numbered in commit order, positions of participants' accounts, closed days and their files.

-- One row: the number of the last event, and the time from which on batches without a number are looked for. Changed by
-- `sequence_events` only.
CREATE TABLE event_head (
    is_only boolean NOT NULL DEFAULT true,
    last_sequence bigint NOT NULL DEFAULT 0,
    scan_from timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT event_head_pkey PRIMARY KEY (is_only),
    CONSTRAINT event_head_one_row CHECK (is_only)
);
INSERT INTO event_head DEFAULT VALUES;

-- One row: positions hold the postings of all events up to this number.
CREATE TABLE position_watermark (
    is_only boolean NOT NULL DEFAULT true,
    through_sequence bigint NOT NULL DEFAULT 0,
    CONSTRAINT position_watermark_pkey PRIMARY KEY (is_only),
    CONSTRAINT position_watermark_one_row CHECK (is_only)
);
INSERT INTO position_watermark DEFAULT VALUES;

-- What moved on an account without a row (settlement, suspense, fund) in a business date.
CREATE TABLE settlement_positions (
    account_id bigint NOT NULL,
    business_date date NOT NULL,
    debit_minor bigint NOT NULL,
    credit_minor bigint NOT NULL,
    posting_count bigint NOT NULL,
    CONSTRAINT settlement_positions_pkey PRIMARY KEY (account_id, business_date),
    CONSTRAINT settlement_positions_account_range CHECK (account_id BETWEEN 1 AND 999999),
    CONSTRAINT settlement_positions_not_negative CHECK (debit_minor >= 0 AND credit_minor >= 0 AND posting_count >= 0)
);

-- Business dates that have events that were rolled up; a closed one takes no more operations.
CREATE TABLE settlement_days (
    business_date date NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence bigint NOT NULL,
    event_count bigint NOT NULL,
    closed_at timestamptz,
    CONSTRAINT settlement_days_pkey PRIMARY KEY (business_date)
);
CREATE FUNCTION refuse_closed_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a closed day stays as it is' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER settlement_days_closed_stay BEFORE UPDATE OR DELETE ON settlement_days
    FOR EACH ROW WHEN (OLD.closed_at IS NOT NULL) EXECUTE FUNCTION refuse_closed_change();

-- Files that were made of a closed day for a participant; the manifest is the text of its file.
CREATE TABLE closings (
    business_date date NOT NULL,
    participant_id text NOT NULL,
    operation_count bigint NOT NULL,
    manifest text NOT NULL,
    manifest_sha256 bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT closings_pkey PRIMARY KEY (business_date, participant_id),
    CONSTRAINT closings_participant_fkey FOREIGN KEY (participant_id) REFERENCES participants,
    CONSTRAINT closings_digest_is_of_manifest CHECK (manifest_sha256 = sha256(convert_to(manifest, 'UTF8')))
);
CREATE INDEX closings_participant_idx ON closings (participant_id, business_date);
CREATE TRIGGER closings_append_only BEFORE UPDATE OR DELETE ON closings
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closings_never_truncated BEFORE TRUNCATE ON closings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Closed days whose files are all made.
CREATE TABLE made_days (
    business_date date NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT made_days_pkey PRIMARY KEY (business_date),
    CONSTRAINT made_days_day_fkey FOREIGN KEY (business_date) REFERENCES settlement_days
);

-- Operations from before batches were noted. All operations of a transaction bear its time, and no transaction takes ids
-- of two blocks.
INSERT INTO event_batches
    (first_operation_id, last_operation_id, operation_count, business_date, decided_at, shard)
SELECT min(operation_id), max(operation_id), count(*), business_date, decided_at, shard
FROM operations
GROUP BY operation_id / 10000, business_date, decided_at, shard
ON CONFLICT ON CONSTRAINT event_batches_pkey DO NOTHING;

-- A time before which no running transaction began, or NULL when that cannot be known of every session. What a transaction
-- decides, it decides after it began.
CREATE FUNCTION oldest_transaction_start() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    now timestamptz := clock_timestamp();
BEGIN
    RETURN (
        -- A session of another role has no state, one without `track_activities` a disabled one.
        SELECT CASE WHEN bool_or(state IS NULL OR state = 'disabled') THEN NULL ELSE least(now, min(xact_start)) END
        FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
    );
END
$$;

-- Numbers the batches that can be seen and have no number yet, in the order of their locks; returns the last number.
--
-- A transaction that waited for a lock of another decided later, by the clock of the database, and cannot be seen without
-- it: any set of visible batches in order of time keeps that order, and what is not yet visible depends on none of them
-- the other way round. Whoever comes while somebody else is numbering returns at once, with what was numbered before.
--
-- While a long snapshot is held (a backup, the proof of the books), the index of what waits keeps all entries that were
-- numbered since. So it is searched from a time on that nothing new can lie before; `is_full` searches all of it, should
-- the clock have gone backwards.
CREATE FUNCTION sequence_events(batches_max integer, is_full boolean DEFAULT false) RETURNS bigint LANGUAGE plpgsql
-- A plan made while the table was small must not be kept.
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    head event_head%ROWTYPE;
    next_from timestamptz;
    batches integer;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'numbering needs a snapshot for each statement' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    IF NOT pg_try_advisory_xact_lock(x'6F6E656361726404'::bigint) THEN  -- "onecard" and 4
        RETURN (SELECT last_sequence FROM event_head);
    END IF;
    -- A new statement has a new snapshot: it sees what the last holder of the lock numbered.
    SELECT * INTO head FROM event_head;
    IF head.scan_from < clock_timestamp() - interval '10 seconds' THEN
        -- Before the snapshot that numbers: what that one does not see was running here, or began after it.
        next_from := oldest_transaction_start();
    END IF;
    WITH waiting AS (
        SELECT b.first_operation_id, b.shard,
               sum(b.operation_count) OVER (ORDER BY b.decided_at, b.first_operation_id, b.shard)
                   - b.operation_count AS before
        FROM (
            SELECT first_operation_id, shard, operation_count, decided_at
            FROM event_batches
            WHERE sequence IS NULL
                  AND decided_at >= CASE WHEN is_full THEN '-infinity' ELSE head.scan_from END
            ORDER BY decided_at, first_operation_id, shard
            LIMIT batches_max
        ) AS b
    ), numbered AS (
        UPDATE event_batches AS b
        SET sequence = head.last_sequence + w.before + 1
        FROM waiting AS w
        WHERE b.first_operation_id = w.first_operation_id AND b.shard = w.shard
        RETURNING b.operation_count
    )
    SELECT count(*), head.last_sequence + coalesce(sum(operation_count), 0) INTO batches, head.last_sequence
    FROM numbered;
    IF batches > 0 OR (next_from IS NOT NULL AND batches < batches_max) THEN
        UPDATE event_head
        SET last_sequence = head.last_sequence,
            scan_from = CASE WHEN batches < batches_max THEN greatest(scan_from, next_from) ELSE scan_from END;
    END IF;
    RETURN head.last_sequence;
END
$$;

-- A batch's place is given once; nothing else of it changes.
CREATE FUNCTION refuse_batch_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a batch takes its number once and stays' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER event_batches_numbered_once BEFORE UPDATE ON event_batches
    FOR EACH ROW
    WHEN (OLD.sequence IS NOT NULL
          OR ROW (NEW.first_operation_id, NEW.last_operation_id, NEW.operation_count, NEW.business_date,
                  NEW.decided_at, NEW.shard)
             IS DISTINCT FROM
             ROW (OLD.first_operation_id, OLD.last_operation_id, OLD.operation_count, OLD.business_date,
                  OLD.decided_at, OLD.shard))
    EXECUTE FUNCTION refuse_batch_change();

-- Whoever writes operations of a date holds the date's lock, shared, to its end; whoever closes a date takes its lock and
-- those of the dates before it alone, and so after them. Later ones find it closed. To the engine that is a lost race: it
-- decides again, by a new look at the clock, and the operation belongs to the next date.
CREATE FUNCTION require_open_day() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1869505891, NEW.business_date - date '2000-01-01');
    IF EXISTS (SELECT FROM settlement_days WHERE business_date >= NEW.business_date AND closed_at IS NOT NULL) THEN
        RAISE EXCEPTION 'the business date is closed' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER event_batches_of_open_days BEFORE INSERT ON event_batches
    FOR EACH ROW EXECUTE FUNCTION require_open_day();
