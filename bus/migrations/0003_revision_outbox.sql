-- Log entries of withdrawals and endings: written in the transaction that makes them count, gone once the log has them.
-- A withdrawal takes effect even while Kafka is away; the trail catches up.
CREATE TABLE revision_outbox (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    value    bytea NOT NULL,                         -- a signed LoggedEntry
    made_at  timestamptz NOT NULL DEFAULT now()
);
