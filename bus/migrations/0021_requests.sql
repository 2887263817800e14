-- Signed requests that a gateway took in, for as long as they would be valid: the same one again is a replay, at
-- whichever gateway. Small and short-lived: rows of a minute or two, found by key and swept by a scan.
CREATE TABLE seen_request (
    request bytea PRIMARY KEY,
    until timestamptz NOT NULL,
    CHECK (length(request) = 32)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
