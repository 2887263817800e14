-- name: next_index
SELECT next_index FROM supervision_position WHERE id = 1;

-- name: advance
-- Compare-and-swap: if another recorder has gone on, nothing is updated and the transaction is given up.
UPDATE supervision_position SET next_index = $2 WHERE id = 1 AND next_index = $1 RETURNING next_index;

-- name: published_size
SELECT size FROM log_checkpoint WHERE id = 1;

-- name: marked
-- $1 the first bundle, $2 terms, $3 how many bundles: each with the bits of its entries that have one of the terms.
SELECT b.number, (SELECT bit_or(t.bits) FROM log_term t
                   WHERE t.term = ANY($2::bigint[]) AND t.bundle = b.number
                     AND t.day BETWEEN (b.logged_at[1] AT TIME ZONE 'Asia/Shanghai')::date
                         AND (b.logged_at[cardinality(b.logged_at)] AT TIME ZONE 'Asia/Shanghai')::date) AS bits
  FROM log_bundle b WHERE b.number >= $1 ORDER BY b.number LIMIT $3;

-- name: memories
SELECT o.consumer, o.operator, o.memory
  FROM supervision_operator o JOIN unnest($1::text[], $2::text[]) AS want(consumer, operator)
    ON o.consumer = want.consumer AND o.operator = want.operator;

-- name: keep_memories
INSERT INTO supervision_operator (consumer, operator, memory)
SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[])
ON CONFLICT (consumer, operator) DO UPDATE SET memory = EXCLUDED.memory;

-- name: add_finding
-- Found ($12 is null), or read in the log: the first makes the row, the log's entry completes it.
INSERT INTO supervision_finding
       (id, rule, severity, at, consumer, operator, first_index, last_index, count, entries, detail, entry)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (id) DO UPDATE SET entry = coalesce(supervision_finding.entry, EXCLUDED.entry);

-- name: unlogged
SELECT id, rule, severity, at, consumer, operator, first_index AS first, last_index AS last, count, entries, detail
  FROM supervision_finding WHERE entry IS NULL ORDER BY number LIMIT 100;

-- name: logged
UPDATE supervision_finding SET entry = $2 WHERE id = $1 AND entry IS NULL;
