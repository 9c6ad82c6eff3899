-- Card on file: a participant names a card by a token of its own.

INSERT INTO catalogue_items (catalogue_item, version, name, legal_basis, valid_from) VALUES
    ('card.token', 1, '社会保障卡代扣签约与解约', '江西省社会保障卡一卡通条例 第十条', '2022-10-01 00:00+08')
-- An operator may have published it before.
ON CONFLICT ON CONSTRAINT catalogue_items_pkey DO NOTHING;

-- Found through `card_credentials`, which holds every token's index for ever: a token names one card and never another, so
-- that workers may remember which. Whether it is in force stands here, read and changed under that card's lock only.
-- The index is a keyed digest of participant and token, 16 bytes; the token itself is kept nowhere.
CREATE TABLE card_tokens (
    token_index bytea NOT NULL,
    shard smallint NOT NULL,
    card_id bigint NOT NULL,
    participant_id text NOT NULL,
    registered_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT card_tokens_pkey PRIMARY KEY (token_index, shard),
    CONSTRAINT card_tokens_index_size CHECK (octet_length(token_index) = 16)
);

CREATE FUNCTION guard_card_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.revoked_at IS NOT NULL
       OR ROW (NEW.token_index, NEW.shard, NEW.card_id, NEW.participant_id, NEW.registered_at)
          IS DISTINCT FROM
          ROW (OLD.token_index, OLD.shard, OLD.card_id, OLD.participant_id, OLD.registered_at) THEN
        RAISE EXCEPTION 'a token of a card can be revoked, once, and nothing else' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER card_tokens_guarded BEFORE UPDATE ON card_tokens
    FOR EACH ROW EXECUTE FUNCTION guard_card_token();
CREATE TRIGGER card_tokens_never_deleted BEFORE DELETE ON card_tokens
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
