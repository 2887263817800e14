-- What auditors ask of the trail: counts over its index, and what became of their readings.

-- The entries that have a term of each of `wanted` groups (of_groups[i] is the group of terms[i]) on these days: of the
-- bundles from `oldest` to `newest`, and of these two only what `served` and `covered` mark. It is not inlined, because it
-- says how much memory it takes: the planner knows neither how many there will be nor that they are worth it.
CREATE FUNCTION log_matches(
    terms bigint[], of_groups integer[], wanted bigint, first_day date, last_day date,
    oldest integer, served bit(256), newest integer, covered bit(256)
) RETURNS TABLE (day date, bundle integer, bits bit(256)) LANGUAGE sql STABLE ROWS 20000 SET work_mem = '64MB' AS $$
    SELECT day, bundle,
           CASE WHEN bundle = newest AND bundle = oldest THEN bit_and(bits) & served & covered
                WHEN bundle = newest THEN bit_and(bits) & covered
                WHEN bundle = oldest THEN bit_and(bits) & served
                ELSE bit_and(bits) END
      FROM (SELECT l.day, l.bundle, bit_or(l.bits) AS bits
              FROM unnest(terms, of_groups) AS one(term, of_group)
             CROSS JOIN LATERAL (SELECT t.day, t.bundle, t.bits FROM log_term t
                                  WHERE t.term = one.term AND t.day BETWEEN first_day AND last_day
                                    AND t.bundle BETWEEN oldest AND newest OFFSET 0) AS l
             GROUP BY one.of_group, l.day, l.bundle) AS of_group
     GROUP BY day, bundle
    HAVING count(*) = wanted
$$;

-- An auditor's reading, and the departments that were a party to what was read. They are shown it in the end: see
-- bus/gateway/embargoes.py.
CREATE TABLE reading (
    number         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entry          bytea NOT NULL UNIQUE,            -- leaf hash of its entry in the log
    at             timestamptz NOT NULL,
    reader         text NOT NULL,
    operator       text NOT NULL,
    what           text NOT NULL,
    investigation  text NOT NULL,                    -- empty: none
    parties        text[] NOT NULL
);
CREATE INDEX reading_parties ON reading USING gin (parties);
CREATE INDEX reading_investigation ON reading (investigation);

-- How long readings for an investigation stay between auditors. Counts once a second person has confirmed it; of several
-- the one that was confirmed last.
CREATE TABLE embargo (
    id                  uuid PRIMARY KEY,
    investigation       text NOT NULL,
    until               timestamptz NOT NULL,
    proposed_by         text NOT NULL,
    proposed_operator   text NOT NULL,
    proposed_at         timestamptz NOT NULL DEFAULT now(),
    confirmed_by        text,
    confirmed_operator  text,
    confirmed_at        timestamptz
);
CREATE INDEX embargo_investigation ON embargo (investigation, confirmed_at);
