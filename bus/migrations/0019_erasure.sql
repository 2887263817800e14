-- Whose gateway can open a session: the owner of the KEM key that it is sealed to (null: of before, the operator's).
-- refusal: no gateway will ever open it, and why.
ALTER TABLE session ADD COLUMN owner text;
ALTER TABLE session ADD COLUMN refusal text;
DROP INDEX session_unwrapped;
CREATE INDEX session_unwrapped ON session (recipient) WHERE roots IS NULL AND refusal IS NULL;
CREATE INDEX session_wrapped ON session (wrap_key);

-- Records whose keys are to be destroyed. A row refuses the record at once; the log says so, then its keys go.
CREATE TABLE erasure (
    record       bytea PRIMARY KEY,                  -- leaf hash
    by           text NOT NULL,                      -- the department that had it erased
    basis        text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    entry        bytea,                              -- leaf hash of its ErasureStarted; null: to be logged
    punctured_at timestamptz,                        -- since when no stored key yields its leaf
    completed_at timestamptz                         -- since when nothing that exists does
);
CREATE INDEX erasure_unlogged ON erasure (started_at) WHERE entry IS NULL;
CREATE INDEX erasure_unfinished ON erasure (started_at) WHERE completed_at IS NULL;

-- What was on bus.sessions at this time is in the table above, or was refused: a KEM key is needed no more for it.
CREATE TABLE sessions_read (
    id  integer PRIMARY KEY CHECK (id = 1),
    at  timestamptz NOT NULL
);
