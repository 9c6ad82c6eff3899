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
SET usage = int2send((day - date '2000-01-01')::smallint) || int4send(0) || '\x00'::bytea
            || '\x01'::bytea || int2send(1::smallint) || int2send(1::smallint)
            || int8send(day_amount_minor) || int8send(day_amount_minor)
WHERE day_amount_minor > 0;
ALTER TABLE card_states
    DROP COLUMN day,
    DROP COLUMN day_amount_minor,
    -- A head of 7 bytes, then 21 for each channel used.
    ADD CONSTRAINT card_states_usage_form CHECK (usage = '' OR (octet_length(usage) - 7) % 21 = 0);
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

-- `approved_minor` is the money that the operation moved, or held for a pre-authorization. `flags`: 1 advice, 2 forced.
ALTER TABLE operations
    ADD COLUMN account_id bigint,
    ADD COLUMN approved_minor bigint,
    ADD COLUMN original_operation_id bigint,
    ADD COLUMN channel smallint,
    ADD COLUMN flags smallint;
-- For the retrieval reference number, and for events in their order.
CREATE INDEX operations_operation_id_idx ON operations (operation_id);

DROP TYPE operation_row;
CREATE TYPE operation_row AS (
    operation_id bigint, request_id uuid, card_id bigint, amount_minor bigint, terminal_time_unix_ms bigint,
    stan integer, operation_kind smallint, mti_class smallint, reason smallint, participant_id text,
    terminal_id text, merchant_id text, response_code text, request_digest bytea, response bytea,
    account_id bigint, approved_minor bigint, original_operation_id bigint, channel smallint, flags smallint
);

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

-- Rules that decisions follow: limits, wallets, merchants, terminals. Each change is proposed by one person and decided by
-- another; what was approved gets the next version, and the highest of a subject is in force.
CREATE TABLE rule_changes (
    change_id uuid NOT NULL,
    change_number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    rule_kind text NOT NULL,
    subject text NOT NULL,
    content jsonb NOT NULL,
    state text NOT NULL DEFAULT 'PROPOSED',
    justification text NOT NULL,
    proposed_by text NOT NULL,
    proposed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_by text,
    decided_at timestamptz,
    version bigint,
    CONSTRAINT rule_changes_pkey PRIMARY KEY (change_id),
    CONSTRAINT rule_changes_version_key UNIQUE (version),
    CONSTRAINT rule_changes_kind_known CHECK (rule_kind IN ('limit', 'wallet', 'merchant', 'terminal', 'acceptance')),
    CONSTRAINT rule_changes_state_known CHECK (state IN ('PROPOSED', 'APPROVED', 'REJECTED')),
    CONSTRAINT rule_changes_decided CHECK (
        (state = 'PROPOSED') = (decided_at IS NULL) AND (state = 'PROPOSED') = (decided_by IS NULL)),
    CONSTRAINT rule_changes_versioned CHECK ((state = 'APPROVED') = (version IS NOT NULL)),
    -- The two-person rule, whatever the code above it does; 'shipped' are the rules that come with the core.
    CONSTRAINT rule_changes_two_persons CHECK (state <> 'APPROVED' OR decided_by <> proposed_by)
);
CREATE INDEX rule_changes_in_force_idx ON rule_changes (rule_kind, subject, version) WHERE state = 'APPROVED';
CREATE INDEX rule_changes_waiting_idx ON rule_changes (change_number) WHERE state = 'PROPOSED';

CREATE FUNCTION guard_rule_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'PROPOSED'
       OR ROW (NEW.change_id, NEW.change_number, NEW.rule_kind, NEW.subject, NEW.content, NEW.justification,
               NEW.proposed_by, NEW.proposed_at)
          IS DISTINCT FROM
          ROW (OLD.change_id, OLD.change_number, OLD.rule_kind, OLD.subject, OLD.content, OLD.justification,
               OLD.proposed_by, OLD.proposed_at) THEN
        RAISE EXCEPTION 'what a rule change was proposed or decided as stays' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER rule_changes_guarded BEFORE UPDATE ON rule_changes
    FOR EACH ROW EXECUTE FUNCTION guard_rule_change();
CREATE TRIGGER rule_changes_never_deleted BEFORE DELETE ON rule_changes
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rule_changes_never_truncated BEFORE TRUNCATE ON rule_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The rules that come with the core. Amounts in 分; a key that is left out means no limit.
INSERT INTO rule_changes
    (change_id, rule_kind, subject, content, state, justification, proposed_by, decided_by, decided_at, version)
SELECT gen_random_uuid(), r.rule_kind, r.subject, r.content::jsonb, 'APPROVED', 'shipped', 'shipped', 'shipped-by-release',
       clock_timestamp(), row_number() OVER ()
FROM (VALUES
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
    ('wallet', '4', '{"name": "学生资助账户", "merchant_categories": ["5812", "5814", "5942", "5943", "8211", "8220", "8241", "8244", "8249", "8299"]}')
) AS r (rule_kind, subject, content);
