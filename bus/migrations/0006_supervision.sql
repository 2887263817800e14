-- Supervision (大数据监督) reads the log behind the recorder: where it is, what it remembers, what it found. All of it
-- follows from the log: dropped with the database, it is made again by reading from the first entry.

CREATE TABLE supervision_position (
    id          integer PRIMARY KEY CHECK (id = 1),
    next_index  bigint NOT NULL
);
INSERT INTO supervision_position (id, next_index) VALUES (1, 0);

-- One row an operator that ever used data: also who has been silent for years is known when back.
CREATE TABLE supervision_operator (
    consumer  text NOT NULL,
    operator  text NOT NULL,
    memory    jsonb NOT NULL,                        -- bus.supervision.Watch.remembered
    PRIMARY KEY (consumer, operator)
);

CREATE TABLE supervision_finding (
    id           bytea PRIMARY KEY,                  -- follows from the rule and the entry that made it hold
    number       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,  -- in the order found, for paging
    rule         text NOT NULL,
    severity     text NOT NULL,
    at           timestamptz NOT NULL,               -- the log's time of the entry that made it hold
    consumer     text NOT NULL,
    operator     text NOT NULL,
    first_index  bigint NOT NULL,
    last_index   bigint NOT NULL,
    count        integer NOT NULL,                   -- entries that it rests on
    entries      bytea[] NOT NULL,                   -- their leaf hashes: all, or the first and the last
    detail       text NOT NULL,
    entry        bytea                               -- leaf hash of the log's entry about it; null until it is there
);
CREATE INDEX supervision_finding_unlogged ON supervision_finding (number) WHERE entry IS NULL;
