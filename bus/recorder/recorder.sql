-- name: try_lock
-- One recorder is active a log; the lock lives as long as its connection.
SELECT pg_try_advisory_lock(hashtext('deptbus recorder'));

-- name: heartbeat
INSERT INTO recorder_heartbeat (id, at) VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET at = EXCLUDED.at;

-- name: positions
SELECT topic, partition, next_offset FROM position;

-- name: first_position
INSERT INTO position (topic, partition, next_offset) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING;

-- name: advance
-- Compare-and-swap: if another recorder has gone on, nothing is updated and the transaction is given up.
UPDATE position AS p SET next_offset = n.new
  FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) AS n(topic, partition, old, new)
 WHERE p.topic = n.topic AND p.partition = n.partition AND p.next_offset = n.old
RETURNING p.topic;

-- name: sessions
SELECT s.session, s.issuer, s.item, s.schema, s.not_after, s.record
  FROM session s JOIN unnest($1::bytea[], $2::text[]) AS want(session, issuer)
    ON s.session = want.session AND s.issuer = want.issuer;

-- name: add_session
-- The first stands. A different second one is refused and logged by the caller, which reads back what stands.
INSERT INTO session (session, issuer, item, schema, created_at, not_after, recipient, record, owner)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (session, issuer) DO NOTHING;

-- name: sessions_read
INSERT INTO sessions_read (id, at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET at = EXCLUDED.at;

-- name: standing
-- What says who may issue: the entries of these items that were ever published, and since when; the powers to issue of
-- these departments and of those who gave them.
WITH held AS (SELECT * FROM rule WHERE kind = 'power' AND grantee = ANY($2::text[]) AND body->>'right' = 'ISSUE')
SELECT r.id, r.kind, r.revision, r.state, r.hash, r.since, a.at AS opened, r.body
  FROM rule r JOIN rule_act a ON a.rule = r.id AND a.act = 'PUBLISH'
 WHERE r.kind = 'item' AND r.item = ANY($1::text[])
UNION ALL
SELECT h.id, h.kind, h.revision, h.state, h.hash, h.since, NULL, h.body FROM held h
UNION ALL
SELECT r.id, r.kind, r.revision, r.state, r.hash, r.since, NULL, r.body FROM rule r
 WHERE r.kind = 'power' AND r.grantee IN (SELECT grantor FROM held) AND r.grantee <> ALL($2::text[])
   AND r.body->>'right' = 'ISSUE';

-- name: admitted_hashes
SELECT leaf_hash FROM record WHERE leaf_hash = ANY($1::bytea[])
UNION ALL SELECT leaf_hash FROM conflict WHERE leaf_hash = ANY($1::bytea[]);

-- name: rivals_by_sequence
SELECT r.licence, r.sequence, r.leaf_hash, r.value
  FROM record r JOIN unnest($1::bytea[], $2::bigint[]) AS want(licence, sequence)
    ON r.licence = want.licence AND r.sequence = want.sequence;

-- name: rivals_by_leaf
SELECT r.issuer, r.session, r.leaf, r.leaf_hash, r.value
  FROM record r JOIN unnest($1::text[], $2::bytea[], $3::int[]) AS want(issuer, session, leaf)
    ON r.issuer = want.issuer AND r.session = want.session AND r.leaf = want.leaf;

-- name: versions_before
-- In whose power each licence's nearest lower admitted sequence was issued.
SELECT want.licence, want.sequence,
       (SELECT COALESCE(r.authority, r.issuer) FROM record r
         WHERE r.licence = want.licence AND r.sequence < want.sequence
         ORDER BY r.sequence DESC LIMIT 1) AS authority
  FROM unnest($1::bytea[], $2::bigint[]) AS want(licence, sequence);

-- name: batches
SELECT b.origin, b.root, b.size, b.entry
  FROM batch b JOIN unnest($1::text[], $2::bytea[], $3::int[]) AS want(origin, root, size)
    ON b.origin = want.origin AND b.root = want.root AND b.size = want.size;

-- name: add_batch
INSERT INTO batch (origin, root, size, entry, admitted_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING;

-- name: add_conflict
INSERT INTO conflict (leaf_hash, rival, entry, value, found_at) VALUES ($1, $2, $3, $4, $5);

-- name: upsert_licences
INSERT INTO licence (licence, item, issuer, sequence, status, valid_from, valid_until)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::date[], $7::date[])
ON CONFLICT (licence) DO UPDATE
   SET issuer = EXCLUDED.issuer, sequence = EXCLUDED.sequence, status = EXCLUDED.status,
       valid_from = EXCLUDED.valid_from, valid_until = EXCLUDED.valid_until
 WHERE EXCLUDED.sequence > licence.sequence;

-- name: erase
-- Every version of these licences that were erased, whichever came first: gateways log it and destroy its keys.
INSERT INTO erasure (record, by, basis)
SELECT r.leaf_hash, e.issuer, 'ERASED ' || encode(e.leaf_hash, 'hex')
  FROM licence l
  JOIN record e ON e.licence = l.licence AND e.sequence = l.sequence AND e.operation = 'ERASED'
  JOIN record r ON r.licence = l.licence AND r.operation <> 'ERASED'
 WHERE l.licence = ANY($1::bytea[]) AND l.status = 'ERASED' ON CONFLICT DO NOTHING;

-- name: add_subjects
INSERT INTO licence_subject (pseudonym, licence)
SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING;

-- name: mark_conflict
UPDATE record SET conflict = true WHERE leaf_hash = ANY($1::bytea[]);

-- name: add_refusal
INSERT INTO refusal (topic, partition, position, code, detail, refused_at, leaf_hash)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::bytea[])
ON CONFLICT DO NOTHING;
