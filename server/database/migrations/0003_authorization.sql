-- Online authorization: wallets, holds, what was undone of an operation, use of limits, rules as data, order of commits.

-- What a database was made for. The number of shards is fixed when the first instance starts on it.
CREATE TABLE database_facts (
    fact text NOT NULL,
    value text NOT NULL,
    CONSTRAINT database_facts_pkey PRIMARY KEY (fact)
);
INSERT INTO database_facts (fact, value) SELECT 'shards', '1' WHERE EXISTS (SELECT FROM card_states);

-- Participants have three accounts without rows: settlement n, suspense 400000 + n, fund 700000 + n.
ALTER TABLE participants
    DROP CONSTRAINT participants_settlement_account_range,
    ADD CONSTRAINT participants_settlement_account_range CHECK (settlement_account_id BETWEEN 1 AND 299999);

-- What a card has used of its limits, packed: `server/authorization/usage.py` has the layout. One column, because a card uses few
-- of the channels, and every money operation reads and writes it.
ALTER TABLE card_states ADD COLUMN usage bytea NOT NULL DEFAULT '';
UPDATE card_states
SET usage = int2send((day - date '2000-01-01')::smallint)
            || '\x01'::bytea || int2send(1::smallint) || int2send(1::smallint)
            || int8send(day_amount_minor) || int8send(day_amount_minor) || int4send(0) || '\x00'::bytea
WHERE day_amount_minor > 0;
ALTER TABLE card_states
    DROP COLUMN day,
    DROP COLUMN day_amount_minor,
    -- A head of 2 bytes, then 26 for each channel used.
    ADD CONSTRAINT card_states_usage_form CHECK (usage = '' OR (octet_length(usage) - 2) % 26 = 0);
-- PostgreSQL clears a page of old row versions when it finds it fuller than the fill factor: at 60 on nearly every visit.
ALTER TABLE card_states SET (fillfactor = 80);
ALTER TABLE accounts SET (fillfactor = 80);
DROP TYPE card_change;
CREATE TYPE card_change AS (
    card_id bigint, status smallint, atc_highest integer, atc_window bigint, pin_tries smallint, usage bytea
);

-- A card has up to 99 wallets; the number of an account tells which: 1 is the financial account at the holder's bank.
ALTER TABLE accounts
    ADD COLUMN wallet smallint NOT NULL DEFAULT 1,
    ADD CONSTRAINT accounts_wallet_of_number CHECK (wallet = 1 + account_id / 1000000000000);

-- `switch_key` stands for terminal, STAN, acquirer and MTI class, as `server/engine/request_log.py` makes it: 16 bytes
-- compare faster than four columns, half of them text. NULL for a duplicate: the key stays with the first.
-- `approved_minor` is the money that the operation moved, or held for a pre-authorization. `flags`: 1 advice, 2 forced.
ALTER TABLE operations
    ADD COLUMN switch_key bytea,
    ADD COLUMN account_id bigint,
    ADD COLUMN approved_minor bigint,
    ADD COLUMN original_operation_id bigint,
    ADD COLUMN channel smallint,
    ADD COLUMN flags smallint;
ALTER TABLE operations DISABLE TRIGGER operations_append_only;
UPDATE operations
SET switch_key = substr(
        sha256(convert_to(participant_id || '|' || stan || '|' || mti_class || '|' || terminal_id, 'UTF8')), 1, 16)
-- A key holds for its business date only.
WHERE business_date >= (now() AT TIME ZONE 'Asia/Shanghai')::date - 1 AND stan IS NOT NULL AND mti_class IS NOT NULL;
ALTER TABLE operations ENABLE TRIGGER operations_append_only;
DROP INDEX operations_switch_key;
CREATE UNIQUE INDEX operations_switch_key ON operations (switch_key, business_date, shard);
-- For the retrieval reference number, and for events in their order.
CREATE INDEX operations_operation_id_idx ON operations (operation_id);

DROP TYPE operation_row;
CREATE TYPE operation_row AS (
    operation_id bigint, request_id uuid, card_id bigint, amount_minor bigint, terminal_time_unix_ms bigint,
    stan integer, operation_kind smallint, mti_class smallint, reason smallint, participant_id text,
    terminal_id text, merchant_id text, response_code text, request_digest bytea, response bytea,
    account_id bigint, approved_minor bigint, original_operation_id bigint, channel smallint, flags smallint,
    switch_key bytea
);

-- Who has a switch key, as batches read it.
CREATE TYPE switch_key_holder AS (switch_key bytea, operation_kind smallint);

-- Money held for a pre-authorization, whose operation id it bears. Changed under the lock of its card only.
CREATE TABLE holds (
    hold_id bigint NOT NULL,
    shard smallint NOT NULL,
    card_id bigint NOT NULL,
    account_id bigint NOT NULL,
    -- 1 pending, 2 captured, 3 voided, 4 reversed, 5 expired.
    state smallint NOT NULL,
    authorized_minor bigint NOT NULL,
    held_minor bigint NOT NULL,
    captured_minor bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL,
    CONSTRAINT holds_pkey PRIMARY KEY (hold_id, shard),
    CONSTRAINT holds_state_known CHECK (state BETWEEN 1 AND 5),
    CONSTRAINT holds_held_while_pending CHECK ((state = 1) = (held_minor > 0)),
    CONSTRAINT holds_held_not_negative CHECK (held_minor >= 0),
    CONSTRAINT holds_captured_not_negative CHECK (captured_minor >= 0)
);
CREATE INDEX holds_pending_expires_at_idx ON holds (expires_at) WHERE state = 1;
CREATE INDEX holds_pending_card_id_idx ON holds (card_id) WHERE state = 1;

-- How much of an operation was taken back. A row comes with the first reversal, void or refund; changed under the lock of
-- the operation's card only.
CREATE TABLE adjustments (
    operation_id bigint NOT NULL,
    shard smallint NOT NULL,
    approved_minor bigint NOT NULL,
    reversed_minor bigint NOT NULL DEFAULT 0,
    refunded_minor bigint NOT NULL DEFAULT 0,
    CONSTRAINT adjustments_pkey PRIMARY KEY (operation_id, shard),
    CONSTRAINT adjustments_not_negative CHECK (reversed_minor >= 0 AND refunded_minor >= 0),
    CONSTRAINT adjustments_bounded CHECK (reversed_minor + refunded_minor <= approved_minor)
);

-- One row for each transaction that wrote operations: their ids, consecutive but for reads. `sequence` is the place of its
-- first event, given after the commit in an order that fits that of the locks; NULL until then.
CREATE TABLE event_batches (
    first_operation_id bigint NOT NULL,
    last_operation_id bigint NOT NULL,
    operation_count integer NOT NULL,
    business_date date NOT NULL,
    decided_at timestamptz NOT NULL,
    shard smallint NOT NULL,
    sequence bigint,
    CONSTRAINT event_batches_pkey PRIMARY KEY (first_operation_id, shard)
);
CREATE INDEX event_batches_unsequenced_idx ON event_batches (decided_at, first_operation_id) WHERE sequence IS NULL;
CREATE UNIQUE INDEX event_batches_sequence_key ON event_batches (sequence);

-- Rules that decisions follow: limits, wallets, merchants, terminals. A change is proposed by one person, in one part or
-- several, and decided by another as a whole. What was approved gets the next version; of a subject's rules the one with
-- the highest version is in force. `base_version` is the newest version when the change was proposed.
CREATE TABLE rule_changes (
    change_id uuid NOT NULL,
    -- Order of the proposals, for lists that are read page by page.
    change_number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    rule_kind text NOT NULL,
    rule_count integer NOT NULL,
    base_version bigint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'PROPOSED',
    justification text NOT NULL,
    proposed_by text NOT NULL,
    proposed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    decision_id uuid,
    decided_by text,
    decided_at timestamptz,
    version bigint,
    CONSTRAINT rule_changes_pkey PRIMARY KEY (change_id),
    CONSTRAINT rule_changes_number_key UNIQUE (change_number),
    CONSTRAINT rule_changes_kind_key UNIQUE (change_id, rule_kind),
    CONSTRAINT rule_changes_decision_key UNIQUE (decision_id),
    CONSTRAINT rule_changes_version_key UNIQUE (version),
    CONSTRAINT rule_changes_kind_known CHECK (rule_kind IN ('limit', 'wallet', 'merchant', 'terminal', 'acceptance')),
    CONSTRAINT rule_changes_rule_count_positive CHECK (rule_count > 0),
    CONSTRAINT rule_changes_state_known CHECK (state IN ('PROPOSED', 'APPROVED', 'REJECTED')),
    CONSTRAINT rule_changes_decided CHECK (
        num_nulls(decision_id, decided_by, decided_at) = CASE state WHEN 'PROPOSED' THEN 3 ELSE 0 END),
    CONSTRAINT rule_changes_versioned CHECK ((state = 'APPROVED') = (version IS NOT NULL)),
    -- The two-person rule, whatever the code above it does.
    CONSTRAINT rule_changes_two_persons CHECK (state <> 'APPROVED' OR decided_by <> proposed_by)
);
CREATE INDEX rule_changes_waiting_idx ON rule_changes (change_number) WHERE state = 'PROPOSED';

-- The requests that a proposal came in. The first one's id is that of the change.
CREATE TABLE rule_change_parts (
    request_id uuid NOT NULL,
    change_id uuid NOT NULL,
    part_number smallint NOT NULL,
    CONSTRAINT rule_change_parts_pkey PRIMARY KEY (request_id),
    CONSTRAINT rule_change_parts_number_key UNIQUE (change_id, part_number),
    CONSTRAINT rule_change_parts_change_fkey FOREIGN KEY (change_id) REFERENCES rule_changes,
    CONSTRAINT rule_change_parts_number_positive CHECK (part_number > 0)
);

-- What a change says, one row for each subject. "C", so that a prefix is a range of the index.
CREATE TABLE rule_change_lines (
    change_id uuid NOT NULL,
    rule_kind text NOT NULL,
    part_number smallint NOT NULL,
    subject text COLLATE "C" NOT NULL,
    content jsonb NOT NULL,
    CONSTRAINT rule_change_lines_pkey PRIMARY KEY (change_id, subject),
    CONSTRAINT rule_change_lines_change_fkey FOREIGN KEY (change_id, rule_kind)
        REFERENCES rule_changes (change_id, rule_kind),
    CONSTRAINT rule_change_lines_content_form CHECK (jsonb_typeof(content) = 'object')
);
CREATE INDEX rule_change_lines_subject_idx ON rule_change_lines (rule_kind, subject);

-- What was proposed stays, a decision is made once, and only a whole proposal is approved. Versions are given one after
-- another: n + 1 waits until n has committed, so that whoever has read n will never miss one below it.
CREATE FUNCTION guard_rule_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'PROPOSED'
       OR ROW (NEW.change_id, NEW.change_number, NEW.rule_kind, NEW.rule_count, NEW.base_version, NEW.justification,
               NEW.proposed_by, NEW.proposed_at)
          IS DISTINCT FROM
          ROW (OLD.change_id, OLD.change_number, OLD.rule_kind, OLD.rule_count, OLD.base_version, OLD.justification,
               OLD.proposed_by, OLD.proposed_at) THEN
        RAISE EXCEPTION 'what a rule change was proposed or decided as stays' USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.state = 'APPROVED' THEN
        IF (SELECT count(*) FROM rule_change_lines WHERE change_id = NEW.change_id) <> NEW.rule_count THEN
            RAISE EXCEPTION 'a rule change is approved as a whole' USING ERRCODE = 'restrict_violation';
        END IF;
        -- "onecard" and 3; each statement of this function sees what has committed before it.
        PERFORM pg_advisory_xact_lock(x'6F6E656361726403'::bigint);
        NEW.version := (SELECT coalesce(max(version), 0) + 1 FROM rule_changes);
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER rule_changes_guarded BEFORE UPDATE ON rule_changes
    FOR EACH ROW EXECUTE FUNCTION guard_rule_change();
CREATE TRIGGER rule_changes_begin_as_proposals BEFORE INSERT ON rule_changes
    FOR EACH ROW WHEN (NEW.state <> 'PROPOSED') EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rule_changes_never_deleted BEFORE DELETE ON rule_changes
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rule_changes_never_truncated BEFORE TRUNCATE ON rule_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rule_change_parts_append_only BEFORE UPDATE OR DELETE ON rule_change_parts
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rule_change_parts_never_truncated BEFORE TRUNCATE ON rule_change_parts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Nothing is added to what was decided. The lock lets a decision that is being made come first, and is held against one
-- that would come before these lines are there.
CREATE FUNCTION guard_rule_change_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM rule_changes WHERE change_id IN (SELECT change_id FROM added) ORDER BY change_id FOR SHARE;
    IF EXISTS (SELECT FROM rule_changes WHERE change_id IN (SELECT change_id FROM added) AND state <> 'PROPOSED') THEN
        RAISE EXCEPTION 'a rule change that was decided stays' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER rule_change_lines_guarded AFTER INSERT ON rule_change_lines
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION guard_rule_change_lines();
CREATE TRIGGER rule_change_lines_append_only BEFORE UPDATE OR DELETE ON rule_change_lines
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rule_change_lines_never_truncated BEFORE TRUNCATE ON rule_change_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The rules that come with the core, by the way that all rules take. Amounts in 分; a key that is left out means no limit.
CREATE TEMPORARY TABLE shipped_rules (rule_kind text, subject text, content jsonb) ON COMMIT DROP;
INSERT INTO shipped_rules VALUES
    ('limit', 'chip', '{"month_amount_max_minor": 20000000, "day_count_max": 2000}'),
    ('limit', 'cash', '{"pin_required_above_minor": 0, "transaction_amount_max_minor": 500000, "day_amount_max_minor": 2000000, "month_amount_max_minor": 20000000, "day_count_max": 20}'),
    ('limit', 'tap', '{"transaction_amount_max_minor": 30000, "day_amount_max_minor": 60000, "day_count_max": 100, "velocity_count_max": 20, "velocity_window_s": 60}'),
    ('limit', 'code', '{"transaction_amount_max_minor": 100000, "day_amount_max_minor": 500000, "month_amount_max_minor": 5000000, "day_count_max": 200}'),
    ('limit', 'card_on_file', '{"transaction_amount_max_minor": 500000, "day_amount_max_minor": 2000000, "month_amount_max_minor": 20000000, "day_count_max": 200}'),
    ('limit', 'transfer', '{"pin_required_above_minor": 0, "day_amount_max_minor": 5000000, "month_amount_max_minor": 50000000, "day_count_max": 200}'),
    ('limit', 'pre_authorization', '{"day_count_max": 200, "capture_tolerance_percent": 15, "hold_days": 30}'),
    ('wallet', '1', '{"name": "金融账户", "cash": true, "transfer": true, "deposit": true}'),
    ('wallet', '2', '{"name": "医保个人账户", "merchant_categories": ["4119", "5047", "5122", "5912", "8011", "8021", "8043", "8050", "8062", "8071", "8099"]}'),
    ('wallet', '3', '{"name": "待遇补贴账户", "cash": true}'),
    ('wallet', '4', '{"name": "学生资助账户", "merchant_categories": ["5812", "5814", "5942", "5943", "8211", "8220", "8241", "8244", "8249", "8299"]}');
INSERT INTO rule_changes (change_id, rule_kind, rule_count, justification, proposed_by)
SELECT gen_random_uuid(), rule_kind, count(*), 'shipped', 'shipped' FROM shipped_rules GROUP BY rule_kind;
INSERT INTO rule_change_parts (request_id, change_id, part_number) SELECT change_id, change_id, 1 FROM rule_changes;
INSERT INTO rule_change_lines (change_id, rule_kind, part_number, subject, content)
SELECT c.change_id, s.rule_kind, 1, s.subject, s.content FROM shipped_rules AS s JOIN rule_changes AS c USING (rule_kind);
UPDATE rule_changes
SET state = 'APPROVED', decision_id = gen_random_uuid(), decided_by = 'shipped-by-release', decided_at = clock_timestamp();
