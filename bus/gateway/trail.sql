-- name: checkpoint
SELECT c.size, c.root, c.note, c.cosigned_size, c.cosigned, COALESCE(s.minimum, 0) AS minimum,
       COALESCE(s.size, 0) AS stored
  FROM log_checkpoint c LEFT JOIN log_state s ON s.id = 1
 WHERE c.id = 1;

-- name: opened
SELECT opened FROM log_bundle WHERE number = $1;

-- name: how_many
-- Whether a group of terms is rarer than another: no further than it takes to tell.
SELECT count(*) FROM (SELECT 1 FROM log_term
                       WHERE term = ANY($1::bigint[]) AND day BETWEEN $2 AND $3 LIMIT $4) AS few;

-- name: scan
-- The next rows of each term, in the log's order: days never go back, so day and bundle rise together.
SELECT wanted.term, p.day, p.bundle, p.bits
  FROM unnest($1::bigint[]) AS wanted(term)
 CROSS JOIN LATERAL (
       SELECT l.day, l.bundle, l.bits
         FROM log_term l
        WHERE l.term = wanted.term AND l.day BETWEEN $2 AND $3 AND l.bundle >= $4
        ORDER BY l.day, l.bundle
        LIMIT $5) AS p;

-- name: probe
-- What another group of terms has in these places.
SELECT l.day, l.bundle, bit_or(l.bits) AS bits
  FROM unnest($2::date[], $3::integer[]) AS want(day, bundle)
  JOIN log_term l ON l.term = ANY($1::bigint[]) AND l.day = want.day AND l.bundle = want.bundle
 GROUP BY l.day, l.bundle;

-- name: first_day
SELECT opened FROM log_bundle WHERE number = 0;

-- name: values
-- Of a dimension with few.
SELECT value FROM log_word WHERE dimension = $1 ORDER BY value LIMIT $2;

-- name: counts
SELECT day, sum(bit_count(bits))::bigint AS count
  FROM log_matches($1, $2, $3, $4, $5, $6, $7, $8, $9)
 GROUP BY day HAVING sum(bit_count(bits)) > 0 ORDER BY day;

-- name: counts_by
-- The same, of those that have a word ($11), too, whose term is $10. Read by the terms' keys, whatever the planner thinks.
SELECT m.day, word.value, sum(bit_count(m.bits & l.bits))::bigint AS count
  FROM unnest($10::bigint[], $11::text[]) AS word(term, value)
 CROSS JOIN LATERAL (SELECT day, bundle, bits FROM log_term
                      WHERE term = word.term AND day BETWEEN $4 AND $5 AND bundle BETWEEN $6 AND $8 OFFSET 0) AS l
  JOIN log_matches($1, $2, $3, $4, $5, $6, $7, $8, $9) AS m USING (day, bundle)
 GROUP BY m.day, word.value HAVING sum(bit_count(m.bits & l.bits)) > 0 ORDER BY m.day, count DESC, word.value;

-- name: hashed
-- Before `cross`: the planner can't know how few rows are left of a join on bits, and would look each up in all others.
SET LOCAL enable_nestloop = off;

-- name: cross
-- Of the same entries how many have a term of each axis ($10, $11, $12). Narrowed one axis after the other: no more rows
-- are made than there are entries.
WITH matched AS MATERIALIZED (SELECT day, bundle, bits FROM log_matches($1, $2, $3, $4, $5, $6, $7, $8, $9)),
     first AS MATERIALIZED (
       SELECT m.day, m.bundle, l.term AS one, m.bits & l.bits AS bits
         FROM log_term l JOIN matched m USING (day, bundle)
        WHERE l.term = ANY($10::bigint[]) AND l.day BETWEEN $4 AND $5 AND l.bundle BETWEEN $6 AND $8
          AND bit_count(m.bits & l.bits) > 0),
     second AS MATERIALIZED (
       SELECT f.day, f.bundle, f.one, l.term AS two, f.bits & l.bits AS bits
         FROM log_term l JOIN first f USING (day, bundle)
        WHERE l.term = ANY($11::bigint[]) AND l.day BETWEEN $4 AND $5 AND l.bundle BETWEEN $6 AND $8
          AND bit_count(f.bits & l.bits) > 0)
SELECT s.one, s.two, l.term AS three, sum(bit_count(s.bits & l.bits))::bigint AS count
  FROM log_term l JOIN second s USING (day, bundle)
 WHERE l.term = ANY($12::bigint[]) AND l.day BETWEEN $4 AND $5 AND l.bundle BETWEEN $6 AND $8
 GROUP BY s.one, s.two, l.term HAVING sum(bit_count(s.bits & l.bits)) > 0;

-- name: uses
-- Of the entries that name these rules (a rule by several terms, one a revision) those that have $3, too: how many, and
-- the last civil day. The rules' own rows lead: they are few, and what they are held against is in every bundle.
SELECT rule, sum(bit_count(bits))::bigint AS count, max(day) AS last
  FROM (SELECT one.rule, l.day,
               CASE WHEN l.bundle = $4 AND l.bundle = $6 THEN l.bits & p.bits & $5::bit(256) & $7::bit(256)
                    WHEN l.bundle = $4 THEN l.bits & p.bits & $5::bit(256)
                    WHEN l.bundle = $6 THEN l.bits & p.bits & $7::bit(256)
                    ELSE l.bits & p.bits END AS bits
          FROM unnest($1::bigint[], $2::uuid[]) AS one(term, rule)
         CROSS JOIN LATERAL (SELECT day, bundle, bits FROM log_term
                              WHERE term = one.term AND bundle BETWEEN $4 AND $6 OFFSET 0) AS l
          JOIN log_term p ON p.term = $3 AND p.day = l.day AND p.bundle = l.bundle) AS said
 WHERE bit_count(bits) > 0
 GROUP BY rule;
