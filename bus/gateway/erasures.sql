-- name: records
SELECT r.leaf_hash, r.item, r.issuer, COALESCE(r.authority, r.issuer) AS provider, r.value
  FROM record r WHERE r.leaf_hash = ANY($1::bytea[]);

-- name: of_subject
-- Every version of the subject's licences that a department issued, or that were issued in its power.
SELECT r.leaf_hash, r.item, r.issuer, COALESCE(r.authority, r.issuer) AS provider, r.value
  FROM licence_subject s JOIN record r ON r.licence = s.licence
 WHERE s.pseudonym = ANY($1::bytea[]) AND $2 IN (r.issuer, COALESCE(r.authority, r.issuer)) AND r.operation <> 'ERASED'
 ORDER BY r.leaf_hash LIMIT $3;

-- name: start
INSERT INTO erasure (record, by, basis) SELECT *, $2, $3 FROM unnest($1::bytea[]) ON CONFLICT DO NOTHING;

-- name: unlogged
-- Gateways take different ones; one that dies gives its own back.
SELECT record, by, basis FROM erasure WHERE entry IS NULL ORDER BY started_at LIMIT $1 FOR UPDATE SKIP LOCKED;

-- name: logged
UPDATE erasure e SET entry = l.entry
  FROM unnest($1::bytea[], $2::bytea[]) AS l(record, entry) WHERE e.record = l.record AND e.entry IS NULL;

-- name: to_puncture
-- Of sessions that this owner's gateways open, when they are stored or never will be: $3 are the KEM keys that are left.
SELECT e.record AS leaf_hash, r.leaf, s.session, s.issuer, s.record, s.roots, s.wrap_key, s.owner, s.refusal
  FROM erasure e
  JOIN record r ON r.leaf_hash = e.record
  JOIN session s ON s.session = r.session AND s.issuer = r.issuer
 WHERE e.completed_at IS NULL AND e.punctured_at IS NULL AND e.entry IS NOT NULL
   AND (s.owner = $1 OR s.owner IS NULL AND $2)
   AND (s.roots IS NOT NULL OR s.refusal IS NOT NULL OR s.recipient <> ALL($3::bytea[]))
 ORDER BY e.started_at LIMIT $4;

-- name: punctured
UPDATE erasure SET punctured_at = now() WHERE record = ANY($1::bytea[]);

-- name: to_complete
-- No key that is left opens the session, and nothing new is sealed to it.
SELECT e.record
  FROM erasure e
  JOIN record r ON r.leaf_hash = e.record
  JOIN session s ON s.session = r.session AND s.issuer = r.issuer
 WHERE e.completed_at IS NULL AND e.punctured_at IS NOT NULL AND s.not_after < now()
   AND (s.owner = $1 OR s.owner IS NULL AND $2) AND s.recipient <> ALL($3::bytea[])
 ORDER BY e.started_at LIMIT $4;

-- name: complete
UPDATE erasure SET completed_at = now() WHERE record = ANY($1::bytea[]);

-- name: show
SELECT e.record, e.by, e.basis, e.started_at, e.entry, e.punctured_at, e.completed_at, r.item, r.licence, r.issuer,
       COALESCE(r.authority, r.issuer) AS provider, s.recipient, s.not_after
  FROM erasure e
  JOIN record r ON r.leaf_hash = e.record
  JOIN session s ON s.session = r.session AND s.issuer = r.issuer
 WHERE e.record = ANY($1::bytea[]) ORDER BY e.record;
