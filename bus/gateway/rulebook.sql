-- name: put
INSERT INTO rule (id, kind, revision, state, hash, grantor, grantee, item, until, body)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: put_scope
INSERT INTO rule_scope (subject, item, grantee, rule) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING;

-- name: put_act
INSERT INTO rule_act (rule, revision, act, state, author, reason) VALUES ($1, $2, $3, $4, $5, $6);

-- name: lock
SELECT kind, revision, state, hash, body FROM rule WHERE id = $1 AND kind = $2 FOR UPDATE;

-- name: one
SELECT kind, revision, state, hash, body FROM rule WHERE id = $1 AND kind = $2;

-- name: change
UPDATE rule SET revision = $2, state = $3, hash = $4, until = $5, body = $6, since = now() WHERE id = $1;

-- name: acts
SELECT revision, act, state, author, reason, at FROM rule_act WHERE rule = $1 ORDER BY revision;

-- name: of_party
SELECT id, revision, state, hash, body FROM rule
 WHERE kind = $2 AND (grantor = $1 OR grantee = $1) ORDER BY id LIMIT $3;

-- name: of_kind
SELECT id, revision, state, hash, body FROM rule WHERE kind = $1 ORDER BY id LIMIT $2;

-- name: of_subjects
SELECT DISTINCT r.id, r.revision, r.state, r.hash, r.body FROM rule r JOIN rule_scope s ON s.rule = r.id
 WHERE s.subject = ANY($1::bytea[]) AND r.kind = $2 ORDER BY r.id LIMIT $3;

-- name: issues_any
SELECT EXISTS (SELECT 1 FROM issuer WHERE item = ANY($1::text[]) AND uscc = $2);
