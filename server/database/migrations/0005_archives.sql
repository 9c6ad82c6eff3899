-- Archives: business dates that left the database as files, and what their postings added up to.

-- Net sum of the postings of archived partitions, by account: credits less debits, also of participants' accounts. With it
-- "a wallet is the sum of its postings" can be proved when old postings are gone.
CREATE TABLE archived_balances (
    account_id bigint NOT NULL,
    shard smallint NOT NULL,
    amount_minor bigint NOT NULL,
    CONSTRAINT archived_balances_pkey PRIMARY KEY (account_id, shard)
);
CREATE TRIGGER archived_balances_never_deleted BEFORE DELETE ON archived_balances
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archived_balances_never_truncated BEFORE TRUNCATE ON archived_balances
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row for each file. A date that was restored and archived again has another generation. `amount_minor` is the sum of
-- that column, `digest_sha256` that of the rows in canonical form: see docs/operations.md.
CREATE TABLE archives (
    business_date date NOT NULL,
    generation integer NOT NULL,
    table_name text NOT NULL,
    schema_version integer NOT NULL,
    row_count bigint NOT NULL,
    amount_minor bigint NOT NULL,
    digest_sha256 bytea NOT NULL,
    file_name text NOT NULL,
    file_bytes bigint NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT archives_pkey PRIMARY KEY (business_date, generation, table_name),
    CONSTRAINT archives_file_name_key UNIQUE (file_name),
    CONSTRAINT archives_generation_positive CHECK (generation >= 1),
    CONSTRAINT archives_table_known CHECK (table_name IN ('operations', 'postings')),
    CONSTRAINT archives_row_count_not_negative CHECK (row_count >= 0),
    CONSTRAINT archives_digest_size CHECK (octet_length(digest_sha256) = 32)
);
-- What happened to a generation: ARCHIVED when its partitions were dropped, RESTORED when its rows came back.
CREATE TABLE archive_events (
    business_date date NOT NULL,
    generation integer NOT NULL,
    event text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT archive_events_pkey PRIMARY KEY (business_date, generation, event),
    CONSTRAINT archive_events_event_known CHECK (event IN ('ARCHIVED', 'RESTORED'))
);
CREATE TRIGGER archives_append_only BEFORE UPDATE OR DELETE ON archives
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archives_never_truncated BEFORE TRUNCATE ON archives
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archive_events_append_only BEFORE UPDATE OR DELETE ON archive_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archive_events_never_truncated BEFORE TRUNCATE ON archive_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Whether settlement has no more to do with a business date: it is closed and its files are made. Without settlement every
-- date is.
CREATE FUNCTION is_settled(day date) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    settled boolean := true;
BEGIN
    IF to_regclass('made_days') IS NOT NULL THEN
        EXECUTE 'SELECT EXISTS (SELECT FROM made_days WHERE business_date = $1)' INTO settled USING day;
    END IF;
    RETURN settled;
END
$$;

-- Partitions are made as tables of their own and then attached: ATTACH waits for no reader or writer of the others, which
-- CREATE TABLE ... PARTITION OF does, and then everybody waits for it. Nothing here depends on the session's time zone.
CREATE FUNCTION partition_name(parent text, day date) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN parent || '_' || to_char(day::timestamp, 'YYYYMMDD');

CREATE FUNCTION guard_partition(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Unlike row triggers, those of TRUNCATE are not inherited.
    EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                   name || '_never_truncated', name);
END
$$;

CREATE FUNCTION make_partition(parent text, day date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition_name(parent, day), parent);
    PERFORM guard_partition(partition_name(parent, day));
END
$$;

CREATE FUNCTION attach_partition(parent text, day date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   parent, partition_name(parent, day), to_char(day::timestamp, 'YYYY-MM-DD'),
                   to_char((day + 1)::timestamp, 'YYYY-MM-DD'));
END
$$;

-- Operations before postings, as batches lock them. The caller bounds the wait: until both are free, others wait behind it.
CREATE FUNCTION drop_partitions(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['operations', 'postings'] LOOP
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, partition_name(parent, day));
    END LOOP;
    FOREACH parent IN ARRAY ARRAY['operations', 'postings'] LOOP
        EXECUTE format('DROP TABLE %I', partition_name(parent, day));
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION ensure_partitions(from_date date, days integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    day date;
    parent text;
    created integer := 0;
BEGIN
    FOR day IN SELECT from_date + n FROM generate_series(0, days - 1) AS n LOOP
        FOREACH parent IN ARRAY ARRAY['operations', 'postings'] LOOP
            IF to_regclass(partition_name(parent, day)) IS NULL THEN
                PERFORM make_partition(parent, day);
                PERFORM attach_partition(parent, day);
                created := created + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN created;
END
$$;

CREATE TRIGGER operations_never_truncated BEFORE TRUNCATE ON operations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER postings_never_truncated BEFORE TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
SELECT guard_partition(c.relname)
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent IN ('operations'::regclass, 'postings'::regclass);
