-- name: consumers
-- A row for each of these that has joined, or one without any: the bus's own state stands in all. What the recorder has
-- read of the log, `read`, never falls: if it does, this is a database of before, which does not know what was erased.
SELECT o.uscc, o.suspended, (SELECT p.next_offset FROM position p WHERE p.topic = 'audit.access') AS read,
       COALESCE((SELECT now() - h.at < $2::interval FROM recorder_heartbeat h WHERE h.id = 1), false) AS fresh,
       COALESCE((SELECT now() - c.published_at < $3::interval FROM log_checkpoint c WHERE c.id = 1), false) AS current
  FROM (SELECT 1) AS one LEFT JOIN org o ON o.uscc = ANY($1::text[]);

-- name: seconds_to_stall
SELECT COALESCE(GREATEST(EXTRACT(epoch FROM
       (SELECT c.published_at FROM log_checkpoint c WHERE c.id = 1) + $1::interval - now()), 0), 0)::float8;

-- name: records
-- Admitted, in conflict, or refused and not sent again since; what is in none is not admitted yet.
SELECT r.leaf_hash, COALESCE(r.authority, r.issuer) AS provider, r.sequence, r.conflict, l.sequence AS newest, l.status,
       l.valid_from, l.valid_until, NULL AS refusal, EXISTS (SELECT 1 FROM erasure e WHERE e.record = r.leaf_hash) AS erased
  FROM record r JOIN licence l ON l.licence = r.licence
 WHERE r.leaf_hash = ANY($1::bytea[])
UNION ALL
SELECT c.leaf_hash, NULL, 0, true, 0, 'VALID', NULL, NULL, NULL, false
  FROM conflict c WHERE c.leaf_hash = ANY($1::bytea[])
UNION ALL
SELECT f.leaf_hash, NULL, 0, false, 0, 'VALID', NULL, NULL, max(f.code), false
  FROM refusal f
 WHERE f.leaf_hash = ANY($1::bytea[])
   AND NOT EXISTS (SELECT 1 FROM record r WHERE r.leaf_hash = f.leaf_hash)
   AND NOT EXISTS (SELECT 1 FROM conflict c WHERE c.leaf_hash = f.leaf_hash)
 GROUP BY f.leaf_hash;

-- name: judged
SELECT NOT EXISTS (
       SELECT 1 FROM unnest($1::bytea[]) AS want(leaf_hash)
        WHERE NOT EXISTS (SELECT 1 FROM record r WHERE r.leaf_hash = want.leaf_hash)
          AND NOT EXISTS (SELECT 1 FROM conflict c WHERE c.leaf_hash = want.leaf_hash)
          AND NOT EXISTS (SELECT 1 FROM refusal f WHERE f.leaf_hash = want.leaf_hash));

-- name: rules
-- What may decide on these items: the catalogue's entries, the powers to open that the consumers hold, their agreements
-- and those of the departments that gave them such a power. Agreements come in the order of their ids.
WITH power AS (
     SELECT p.* FROM rule p WHERE p.kind = 'power' AND p.grantee = ANY($1::text[]) AND p.body->>'right' = 'OPEN')
SELECT r.id, r.kind, r.revision, r.state, r.hash, r.grantor, r.item, r.body FROM rule r
 WHERE r.kind = 'agreement' AND r.grantee = ANY($1::text[] || ARRAY(SELECT p.grantor FROM power p))
   AND (r.grantor, r.item) IN (SELECT * FROM unnest($2::text[], $3::text[]))
UNION ALL
SELECT r.id, r.kind, r.revision, r.state, r.hash, r.grantor, r.item, r.body FROM rule r
 WHERE r.kind = 'item' AND r.item = ANY($3::text[])
UNION ALL
SELECT p.id, p.kind, p.revision, p.state, p.hash, p.grantor, p.item, p.body FROM power p
 ORDER BY 1;

-- name: scoped
-- Consents to these consumers (or to whom they open for) and mandates of these agents, about these holders.
SELECT r.id, r.kind, r.revision, r.state, r.hash, r.body, s.subject, s.item
  FROM unnest($2::bytea[], $3::text[]) AS want(subject, item)
  JOIN rule_scope s ON s.subject = want.subject AND s.item = want.item AND s.grantee = ANY($1::text[])
  JOIN rule r ON r.id = s.rule
 ORDER BY r.id;

-- name: usage
SELECT rule, code, period, used FROM usage
 WHERE (rule, code, period) IN (SELECT * FROM unnest($1::uuid[], $2::text[], $3::date[]));

-- name: first_time
-- The units (each a hash over request id, record, rule and period) that were not taken before: only these are paid.
INSERT INTO request (consumer, request) SELECT $1, * FROM unnest($2::bytea[]) ON CONFLICT DO NOTHING RETURNING request;

-- name: open_usage
INSERT INTO usage (rule, code, period, used) VALUES ($1, $2, $3, 0) ON CONFLICT DO NOTHING;

-- name: take
-- Never more than the limit, however many gateways take at once: returns how many of the wanted units were left.
WITH before AS (SELECT used FROM usage WHERE rule = $1 AND code = $2 AND period = $3 FOR UPDATE)
UPDATE usage u SET used = u.used + LEAST($4::bigint, GREATEST($5::bigint - b.used, 0))
  FROM before b WHERE u.rule = $1 AND u.code = $2 AND u.period = $3
RETURNING LEAST($4::bigint, GREATEST($5::bigint - b.used, 0)) AS taken;

-- name: note
-- How many records were opened today under rules that say how long they may be kept, in the order of the rules.
INSERT INTO data_life (rule, consumer, opened_on, ends_on, records)
SELECT n.rule, $1, $2, n.ends_on, n.records FROM unnest($3::uuid[], $4::date[], $5::bigint[]) AS n(rule, ends_on, records)
ON CONFLICT (rule, consumer, opened_on) DO UPDATE SET records = data_life.records + EXCLUDED.records;

-- name: revisions
SELECT id, revision FROM rule WHERE id = ANY($1::uuid[]);
