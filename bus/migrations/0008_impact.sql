-- Impact: who relied on a licence that was revoked, cancelled, punished or corrected is told.

-- Which record follows from which: the claims' `parents`, turned round. Written at admission.
CREATE TABLE parent (
    parent  bytea NOT NULL,
    child   bytea NOT NULL,
    PRIMARY KEY (parent, child)
);
CREATE INDEX parent_child ON parent (child);

-- How far the records from before this table have been looked through for their parents: no row once they all have.
-- SQL does not read claims, so the recorder does it, before its first notice.
CREATE TABLE parent_scan (
    id     integer PRIMARY KEY CHECK (id = 1),
    after  bytea NOT NULL                            -- leaf hash of the last one looked at
);
INSERT INTO parent_scan (id, after) SELECT 1, '' WHERE EXISTS (SELECT 1 FROM record);

-- One row a record that notices are due for, written with its admission. What was said stands in the log.
CREATE TABLE impact (
    record         bytea PRIMARY KEY REFERENCES record,
    licence        bytea NOT NULL,
    pending        boolean NOT NULL DEFAULT true,
    since          timestamptz NOT NULL,             -- of the admission that made it pending
    opened_before  bigint,                           -- place in the log: who opened later knew; null until looked at
    sent           integer NOT NULL DEFAULT 0        -- notices of it that are known to be on their topic, in log order
);
CREATE INDEX impact_pending ON impact (since) WHERE pending;
CREATE INDEX impact_licence ON impact (licence);
