-- name: checkpoint
SELECT size, root, note, cosigned_size, cosigned FROM log_checkpoint WHERE id = 1;

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
