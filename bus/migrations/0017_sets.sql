-- Set grants (免申即享, 政策找人, 比对): one entry of the log holds the root of the exact set, the set itself is here.
CREATE TABLE set_grant (
    entry     bytea PRIMARY KEY,                     -- leaf hash of its SetDecision entry
    root      bytea NOT NULL,                        -- over the members, in their order
    consumer  text NOT NULL,
    purpose   text NOT NULL,
    ground    text NOT NULL,
    citation  text NOT NULL,
    sections  text[] NOT NULL,
    size      integer NOT NULL,
    granted   boolean NOT NULL DEFAULT false,        -- the entry is durable and was not taken back
    stored_at timestamptz NOT NULL DEFAULT now()
);

-- A leaf is over the record and its subjects; positions follow the records' leaf hashes.
CREATE TABLE set_member (
    entry     bytea NOT NULL REFERENCES set_grant,
    position  integer NOT NULL,
    record    bytea NOT NULL,
    subjects  bytea[] NOT NULL,
    PRIMARY KEY (entry, position)
);
CREATE INDEX set_member_record ON set_member (record, entry);

-- By whom a set is found: who opened my data?
CREATE TABLE set_subject (
    subject   bytea NOT NULL,
    entry     bytea NOT NULL REFERENCES set_grant,
    position  integer NOT NULL,
    PRIMARY KEY (subject, entry, position)
);
