-- name: findings
-- $1 behind this number, then exact filters (or null), $7 at most so many. Numbers rise in the order found.
SELECT number, id, rule, severity, at, consumer, operator, first_index AS first, last_index AS last, count, entries,
       detail, entry
  FROM supervision_finding
 WHERE number > $1
   AND ($2::text IS NULL OR rule = $2)
   AND ($3::text IS NULL OR consumer = $3)
   AND ($4::text IS NULL OR operator = $4)
   AND ($5::timestamptz IS NULL OR at >= $5)
   AND ($6::timestamptz IS NULL OR at < $6)
 ORDER BY number
 LIMIT $7;
