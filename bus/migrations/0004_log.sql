-- The audit log as a tree in tiles (C2SP tlog-tiles), and an inverted index over it instead of rows: what an auditor
-- reads are the log's own bytes. It is built again from the topic, so the rows of before go.

DROP TABLE audit_subject, audit_entry;
DROP FUNCTION refuse_change();
DELETE FROM position WHERE topic = 'audit.access';

-- What is integrated. Written in the transaction of the tiles, bundles and terms that it speaks of.
CREATE TABLE log_state (
    id         integer PRIMARY KEY CHECK (id = 1),
    size       bigint NOT NULL,
    root       bytea NOT NULL,
    logged_at  timestamptz NOT NULL                  -- of the newest entry: the log's clock never goes back
);

-- What is signed and published. `note` is the newest checkpoint; `cosigned` the newest that witnesses have signed.
CREATE TABLE log_checkpoint (
    id            integer PRIMARY KEY CHECK (id = 1),
    size          bigint NOT NULL,
    root          bytea NOT NULL,
    note          bytea NOT NULL,
    published_at  timestamptz NOT NULL,              -- a gateway that finds it old releases no key (AUDIT_STALLED)
    cosigned_size bigint NOT NULL DEFAULT 0,
    cosigned      bytea
);

-- A tile grows until it has 256 hashes; the partial tile of a smaller log is its beginning.
CREATE TABLE log_tile (
    level   smallint NOT NULL,
    number  bigint NOT NULL,
    hashes  bytea NOT NULL,
    PRIMARY KEY (level, number)
);
ALTER TABLE log_tile ALTER hashes SET STORAGE EXTERNAL;  -- hashes do not compress

-- 256 entries, as C2SP tlog-tiles serves them. One entry is a substring: external storage reads no more than that.
CREATE TABLE log_bundle (
    number     bigint NOT NULL,
    opened     date NOT NULL,                        -- the day (UTC+8) of its first entry
    starts     integer[] NOT NULL,                   -- where each entry's bytes begin, behind its length
    logged_at  timestamptz[] NOT NULL,               -- the broker's time of each entry, never before the one before
    entries    bytea NOT NULL,
    PRIMARY KEY (number, opened)
) PARTITION BY RANGE (opened);
ALTER TABLE log_bundle ALTER entries SET STORAGE EXTERNAL;

-- The inverted index: which entries of a bundle, on a day (UTC+8, by the log's clock), have a term (bus/terms.py).
-- The leftmost bit is the bundle's first entry. Counts a day are sums of bits; AND and OR are bit operations.
CREATE TABLE log_term (
    term    bigint NOT NULL,
    day     date NOT NULL,
    bundle  integer NOT NULL,
    bits    bit(256) NOT NULL,
    PRIMARY KEY (term, day, bundle)
) PARTITION BY RANGE (day);
CREATE INDEX log_term_bundle ON log_term USING brin (bundle) WITH (pages_per_range = 32);

-- What there is to choose from: the values of the dimensions that have few.
CREATE TABLE log_word (
    dimension  text NOT NULL,
    value      text NOT NULL,
    PRIMARY KEY (dimension, value)
);

CREATE FUNCTION log_only_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND TG_ARGV[0] = 'tile' THEN
        IF (NEW.level, NEW.number) = (OLD.level, OLD.number)
           AND substring(NEW.hashes FOR length(OLD.hashes)) = OLD.hashes THEN RETURN NEW; END IF;
    ELSIF TG_OP = 'UPDATE' AND TG_ARGV[0] = 'bundle' THEN
        IF (NEW.number, NEW.opened) = (OLD.number, OLD.opened)
           AND substring(NEW.entries FOR length(OLD.entries)) = OLD.entries
           AND NEW.starts[1:cardinality(OLD.starts)] = OLD.starts
           AND NEW.logged_at[1:cardinality(OLD.logged_at)] = OLD.logged_at THEN RETURN NEW; END IF;
    ELSIF TG_OP = 'UPDATE' AND TG_ARGV[0] = 'term' THEN
        IF (NEW.term, NEW.day, NEW.bundle) = (OLD.term, OLD.day, OLD.bundle)
           AND NEW.bits & OLD.bits = OLD.bits THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION 'the audit log only grows';
END $$;
CREATE TRIGGER log_tile_grows BEFORE UPDATE OR DELETE ON log_tile
    FOR EACH ROW EXECUTE FUNCTION log_only_grows('tile');
CREATE TRIGGER log_bundle_grows BEFORE UPDATE OR DELETE ON log_bundle
    FOR EACH ROW EXECUTE FUNCTION log_only_grows('bundle');
CREATE TRIGGER log_term_grows BEFORE UPDATE OR DELETE ON log_term
    FOR EACH ROW EXECUTE FUNCTION log_only_grows('term');
CREATE TRIGGER log_tile_stays BEFORE TRUNCATE ON log_tile FOR EACH STATEMENT EXECUTE FUNCTION log_only_grows();
CREATE TRIGGER log_bundle_stays BEFORE TRUNCATE ON log_bundle FOR EACH STATEMENT EXECUTE FUNCTION log_only_grows();
CREATE TRIGGER log_term_stays BEFORE TRUNCATE ON log_term FOR EACH STATEMENT EXECUTE FUNCTION log_only_grows();

-- The partitions of a month, made before the first row that needs them.
CREATE FUNCTION log_partitions(first_day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    part text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['log_bundle', 'log_term'] LOOP
        part := parent || to_char(first_day, '_YYYYMM');
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                           part, parent, first_day, first_day + interval '1 month');
            EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION log_only_grows()',
                           part || '_stays', part);
        END IF;
    END LOOP;
END $$;
