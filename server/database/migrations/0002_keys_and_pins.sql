-- PINs of cards, the administration of keys, and which participant may use which key.

ALTER TABLE participant_grants
    DROP CONSTRAINT participant_grants_kind_known,
    ADD CONSTRAINT participant_grants_kind_known
        CHECK (grant_kind IN ('rpc_class', 'region', 'catalogue_item', 'key'));

INSERT INTO catalogue_items (catalogue_item, version, name, legal_basis, valid_from) VALUES
    ('card.pin', 1, '社会保障卡密码设置与校验', '江西省社会保障卡一卡通条例 第十条', '2022-10-01 00:00+08')
-- An operator may have published it before.
ON CONFLICT ON CONSTRAINT catalogue_items_pkey DO NOTHING;

-- Wrong PINs in a row; set back by a right one. In the card's one row, because every credential locks it.
ALTER TABLE card_states
    ADD COLUMN pin_tries smallint NOT NULL DEFAULT 0,
    ADD CONSTRAINT card_states_pin_tries_not_negative CHECK (pin_tries >= 0);
ALTER TYPE card_change ADD ATTRIBUTE pin_tries smallint;

-- What a PIN is verified against, sealed; read and changed under the card's lock only. A table of its own, because few
-- of the operations that lock a card need it.
CREATE TABLE card_pins (
    card_id bigint NOT NULL,
    shard smallint NOT NULL,
    pvk_version smallint NOT NULL,
    reference_sealed bytea NOT NULL,
    changed_at timestamptz NOT NULL,
    -- Unblockings since the PIN was last right: each gives three more guesses.
    unblocks smallint NOT NULL DEFAULT 0,
    CONSTRAINT card_pins_pkey PRIMARY KEY (card_id, shard),
    CONSTRAINT card_pins_pvk_version_range CHECK (pvk_version BETWEEN 1 AND 255),
    CONSTRAINT card_pins_unblocks_not_negative CHECK (unblocks >= 0)
);

-- A change of keys, proposed by one operator and decided by another. `request` is the proposal as it came, without any
-- key: components have a table of their own, and a key block is encrypted. `details` is what the second operator is shown
-- of it, and `under_version` the version of the key-block protection key that was meant when it was proposed.
CREATE TABLE key_changes (
    change_id uuid NOT NULL,
    -- Order of the proposals, for lists that are read page by page.
    change_number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    key_name text NOT NULL,
    key_version smallint NOT NULL DEFAULT 0,
    components_needed smallint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'PROPOSED',
    justification text NOT NULL,
    request bytea NOT NULL,
    details text[] NOT NULL,
    under_version smallint NOT NULL DEFAULT 0,
    proposed_by text NOT NULL,
    proposed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_by text,
    decided_at timestamptz,
    CONSTRAINT key_changes_pkey PRIMARY KEY (change_id),
    CONSTRAINT key_changes_number_key UNIQUE (change_number),
    CONSTRAINT key_changes_kind_known CHECK (kind IN (
        'GENERATE', 'IMPORT_COMPONENTS', 'IMPORT_BLOCK', 'EXPORT_BLOCK', 'ACTIVATE', 'ROTATE', 'RETIRE', 'DESTROY',
        'CANCEL_DESTRUCTION')),
    CONSTRAINT key_changes_state_known CHECK (
        state IN ('PROPOSED', 'APPROVED', 'EXECUTED', 'FAILED', 'REJECTED', 'EXPIRED')),
    CONSTRAINT key_changes_version_range CHECK (key_version BETWEEN 0 AND 255),
    CONSTRAINT key_changes_components_range CHECK (
        components_needed IN (0, 2, 3) AND (components_needed > 0) = (kind = 'IMPORT_COMPONENTS')),
    CONSTRAINT key_changes_under_version_range CHECK (
        under_version BETWEEN 0 AND 255 AND (under_version > 0) = (kind IN ('IMPORT_BLOCK', 'EXPORT_BLOCK'))),
    CONSTRAINT key_changes_decided CHECK (
        (state = 'PROPOSED') = (decided_at IS NULL) AND (state = 'PROPOSED') = (decided_by IS NULL)),
    -- The two-person rule, whatever the code above it does.
    CONSTRAINT key_changes_two_persons CHECK (
        state NOT IN ('APPROVED', 'EXECUTED', 'FAILED') OR decided_by IS NOT NULL AND decided_by <> proposed_by)
);
CREATE INDEX key_changes_waiting_idx ON key_changes (change_number) WHERE state = 'PROPOSED';
-- One change of a key at a time is carried out: one that was interrupted is finished before the next begins.
CREATE UNIQUE INDEX key_changes_one_approved_key ON key_changes (key_name) WHERE state = 'APPROVED';

-- What was proposed stays as it was, and what is decided goes one way only, whatever the code above it does.
CREATE FUNCTION guard_key_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state, NEW.state) NOT IN (
            ('PROPOSED', 'APPROVED'), ('PROPOSED', 'REJECTED'), ('PROPOSED', 'EXPIRED'),
            ('APPROVED', 'EXECUTED'), ('APPROVED', 'FAILED')) THEN
        RAISE EXCEPTION 'a key change that is % does not become %', OLD.state, NEW.state
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF ROW (NEW.change_id, NEW.change_number, NEW.kind, NEW.key_name, NEW.components_needed, NEW.justification,
            NEW.request, NEW.details, NEW.under_version, NEW.proposed_by, NEW.proposed_at)
       IS DISTINCT FROM
       ROW (OLD.change_id, OLD.change_number, OLD.kind, OLD.key_name, OLD.components_needed, OLD.justification,
            OLD.request, OLD.details, OLD.under_version, OLD.proposed_by, OLD.proposed_at)
       OR NEW.key_version <> OLD.key_version AND (OLD.key_version <> 0 OR NEW.state <> 'EXECUTED')
       OR OLD.state = 'APPROVED'
          AND ROW (NEW.decided_by, NEW.decided_at) IS DISTINCT FROM ROW (OLD.decided_by, OLD.decided_at) THEN
        RAISE EXCEPTION 'what a key change was proposed or approved as stays' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER key_changes_guarded BEFORE UPDATE ON key_changes
    FOR EACH ROW EXECUTE FUNCTION guard_key_change();
CREATE TRIGGER key_changes_begin_as_proposals BEFORE INSERT ON key_changes
    FOR EACH ROW WHEN (NEW.state <> 'PROPOSED') EXECUTE FUNCTION refuse_change();
CREATE TRIGGER key_changes_never_deleted BEFORE DELETE ON key_changes
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER key_changes_never_truncated BEFORE TRUNCATE ON key_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Components of keys that are imported, sealed; they are dropped when the change has ended, who brought them stays.
CREATE TABLE key_components (
    change_id uuid NOT NULL,
    component_number smallint NOT NULL,
    participant_id text NOT NULL,
    request_id uuid NOT NULL,
    component_sealed bytea,
    kcv text NOT NULL,
    CONSTRAINT key_components_pkey PRIMARY KEY (change_id, component_number),
    CONSTRAINT key_components_participant_key UNIQUE (change_id, participant_id),
    CONSTRAINT key_components_request_key UNIQUE (request_id),
    CONSTRAINT key_components_change_fkey FOREIGN KEY (change_id) REFERENCES key_changes,
    CONSTRAINT key_components_number_range CHECK (component_number BETWEEN 1 AND 3)
);
CREATE FUNCTION guard_key_component() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.component_sealed IS NOT NULL
       OR ROW (NEW.change_id, NEW.component_number, NEW.participant_id, NEW.request_id, NEW.kcv)
          IS DISTINCT FROM ROW (OLD.change_id, OLD.component_number, OLD.participant_id, OLD.request_id, OLD.kcv) THEN
        RAISE EXCEPTION 'a key component is dropped and never changed' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER key_components_only_dropped BEFORE UPDATE ON key_components
    FOR EACH ROW EXECUTE FUNCTION guard_key_component();
CREATE TRIGGER key_components_never_deleted BEFORE DELETE ON key_components
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER key_components_never_truncated BEFORE TRUNCATE ON key_components
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Every step in the life of keys.
CREATE TABLE key_audit (
    entry_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    step text NOT NULL,
    participant_id text NOT NULL,
    change_id uuid,
    key_name text NOT NULL,
    key_version smallint NOT NULL DEFAULT 0,
    detail text NOT NULL DEFAULT '',
    CONSTRAINT key_audit_pkey PRIMARY KEY (entry_id),
    CONSTRAINT key_audit_step_known CHECK (step IN (
        'PROPOSED', 'COMPONENT_SUBMITTED', 'APPROVED', 'EXECUTED', 'FAILED', 'REJECTED', 'EXPIRED', 'REFUSED',
        'DESTROYED', 'EXPLAINED'))
);
CREATE INDEX key_audit_key_name_idx ON key_audit (key_name, entry_id);
CREATE TRIGGER key_audit_append_only BEFORE UPDATE OR DELETE ON key_audit
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER key_audit_never_truncated BEFORE TRUNCATE ON key_audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
