-- name: covering
-- Hashes of what shares any of these items with a recipient: what a consent is given under.
SELECT hash, revision, state, id, body FROM rule
 WHERE kind = 'agreement' AND grantee = $1 AND item = ANY($2::text[])
   AND state NOT IN ('REFUSED', 'EXPIRED', 'TERMINATED') ORDER BY id;

-- name: active
-- Under which revisions consents opened anything: those that began with a giving or a resuming. The newest first.
SELECT rule, revision FROM rule_act
 WHERE rule = ANY($1::uuid[]) AND state = 'ACTIVE' ORDER BY at DESC, rule, revision DESC LIMIT $2;

-- name: under
-- The agreements of these hashes.
SELECT id, revision, state, hash, body FROM rule
 WHERE kind = 'agreement' AND grantee = $1 AND hash = ANY($2::bytea[]) ORDER BY id;
