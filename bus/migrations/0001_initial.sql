-- The bus's own database. Written by the recorder (index, audit rows), by gateways (facts, session keys) and by
-- nobody else. Times are UTC; ids that name people are pseudonyms.

CREATE TABLE org (
    uscc       text PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    suspended  boolean NOT NULL DEFAULT false,
    auditor    boolean NOT NULL DEFAULT false,      -- may read the whole audit trail
    added_at   timestamptz NOT NULL DEFAULT now()
);

-- Who issues what, where: region is a GB/T 2260 prefix of 2, 4 or 6 digits, or '' for the whole country.
CREATE TABLE issuer (
    item    text NOT NULL,
    uscc    text NOT NULL REFERENCES org,
    region  text NOT NULL DEFAULT '',
    PRIMARY KEY (item, uscc, region)
);

CREATE TABLE agreement (
    id        uuid PRIMARY KEY,
    revision  integer NOT NULL,
    provider  text NOT NULL,
    consumer  text NOT NULL,
    item      text NOT NULL,
    state     text NOT NULL CHECK (state IN ('ACTIVE', 'SUSPENDED', 'TERMINATED')),
    body      jsonb NOT NULL,                        -- consent.model.Agreement, whole
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX agreement_parties ON agreement (provider, consumer, item);

CREATE TABLE consent (
    id        uuid PRIMARY KEY,
    revision  integer NOT NULL,
    subject   bytea NOT NULL,                        -- pseudonym for the item
    recipient text NOT NULL,
    item      text NOT NULL,
    state     text NOT NULL CHECK (state IN ('ACTIVE', 'WITHDRAWN')),
    body      jsonb NOT NULL,                        -- consent.model.Consent, whole
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX consent_parties ON consent (subject, recipient, item);

-- Units taken of a limit: an agreement's records a day, a consent's uses. Taken by one UPDATE, so never exceeded.
CREATE TABLE usage (
    rule    uuid NOT NULL,
    period  date NOT NULL,                           -- the day (UTC+8), or 1970-01-01 for 'over all time'
    used    bigint NOT NULL,
    PRIMARY KEY (rule, period)
);

-- A consumer's request ids: a repeat is decided and logged again, and takes no second unit.
CREATE TABLE request (
    consumer  text NOT NULL,
    request   bytea NOT NULL,
    first_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, request)
);

CREATE TABLE session (
    session    bytea NOT NULL,
    issuer     text NOT NULL,
    item       text NOT NULL,
    schema     bytea NOT NULL,
    created_at timestamptz NOT NULL,
    not_after  timestamptz NOT NULL,
    recipient  bytea NOT NULL,                       -- id of the gateway's KemKey
    record     bytea NOT NULL,                       -- the Session record as received
    roots      bytea,                                -- every section's root, wrapped; null until a gateway took it
    wrap_key   text,                                 -- which wrapping key
    PRIMARY KEY (session, issuer)
);
CREATE INDEX session_unwrapped ON session (recipient) WHERE roots IS NULL;

-- One row a verified batch: the log's entry that places its root in time.
CREATE TABLE batch (
    root       bytea NOT NULL,
    origin     text NOT NULL,
    size       integer NOT NULL,
    entry      bytea NOT NULL,                       -- leaf hash of the Admitted entry's value
    admitted_at timestamptz NOT NULL,
    PRIMARY KEY (origin, root, size)
);

-- The licence index: every admitted version, as received.
CREATE TABLE record (
    leaf_hash   bytea PRIMARY KEY,
    licence     bytea NOT NULL,
    sequence    bigint NOT NULL,
    item        text NOT NULL,
    issuer      text NOT NULL,
    session     bytea NOT NULL,
    leaf        integer NOT NULL,
    operation   text NOT NULL,
    occurred_at timestamptz NOT NULL,
    valid_from  date,
    valid_until date,
    region      text NOT NULL,
    admitted_at timestamptz NOT NULL,
    entry       bytea NOT NULL,                      -- leaf hash of its batch's Admitted entry
    conflict    boolean NOT NULL DEFAULT false,
    value       bytea NOT NULL,                      -- the Kafka value as received
    UNIQUE (licence, sequence),
    UNIQUE (issuer, session, leaf)
);

ALTER TABLE record ALTER value SET STORAGE EXTERNAL;  -- ciphertext: compressing it only costs time

-- A second record that claims a taken place. Neither opens until a person's ruling.
CREATE TABLE conflict (
    leaf_hash   bytea PRIMARY KEY,
    rival       bytea NOT NULL REFERENCES record,
    entry       bytea NOT NULL,                      -- leaf hash of the Conflict entry's value
    value       bytea NOT NULL,
    found_at    timestamptz NOT NULL
);

-- Newest state of a licence, by the highest admitted sequence.
CREATE TABLE licence (
    licence     bytea PRIMARY KEY,
    item        text NOT NULL,
    issuer      text NOT NULL,
    sequence    bigint NOT NULL,
    status      text NOT NULL,
    valid_from  date,
    valid_until date
);

CREATE TABLE licence_subject (
    pseudonym   bytea NOT NULL,
    licence     bytea NOT NULL,
    PRIMARY KEY (pseudonym, licence)
);

-- Records the recorder refused, so that their publishers can be told. Never holds opened content.
CREATE TABLE refusal (
    topic       text NOT NULL,
    partition   integer NOT NULL,
    position    bigint NOT NULL,
    code        text NOT NULL,
    detail      text NOT NULL,
    refused_at  timestamptz NOT NULL,
    PRIMARY KEY (topic, partition, position)
);

-- Audit entries in the order of the topic. Append-only: the trigger below refuses everything else.
CREATE TABLE audit_entry (
    position    bigint PRIMARY KEY,                  -- offset in audit.access
    leaf_hash   bytea NOT NULL,                      -- of the LoggedEntry value
    time        timestamptz NOT NULL,
    kind        text NOT NULL,
    signer      bytea NOT NULL,
    consumer    text,
    provider    text,
    item        text,
    purpose     text,
    ground      text,
    case_ref    text,
    operator    text,
    request     bytea,
    record      bytea,                               -- leaf hash of the record it speaks of
    licence     bytea,
    permitted   text[] NOT NULL DEFAULT '{}',        -- sections opened
    refused     text[] NOT NULL DEFAULT '{}',        -- section=CODE
    value       bytea NOT NULL
);
CREATE INDEX audit_entry_leaf ON audit_entry (leaf_hash);
CREATE INDEX audit_entry_time ON audit_entry (time);
CREATE INDEX audit_entry_consumer ON audit_entry (consumer, time);
CREATE INDEX audit_entry_record ON audit_entry (record);

CREATE TABLE audit_subject (
    pseudonym   bytea NOT NULL,
    position    bigint NOT NULL REFERENCES audit_entry,
    PRIMARY KEY (pseudonym, position)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit rows are append-only';
END $$;
CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_subject_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_subject
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The active recorder writes it each second; a gateway that finds it old denies (INDEX_STALE).
CREATE TABLE recorder_heartbeat (
    id          integer PRIMARY KEY CHECK (id = 1),
    at          timestamptz NOT NULL
);

-- Where the recorder goes on, written in the transaction of the rows that it speaks of.
CREATE TABLE position (
    topic       text NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
