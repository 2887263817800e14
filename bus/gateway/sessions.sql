-- name: sessions
SELECT s.session, s.issuer, s.record, s.roots, s.wrap_key, s.owner, s.refusal
  FROM session s JOIN unnest($1::bytea[], $2::text[]) AS want(session, issuer)
    ON s.session = want.session AND s.issuer = want.issuer;

-- name: unwrapped
SELECT session, issuer, record, roots, wrap_key, owner, refusal FROM session
 WHERE roots IS NULL AND refusal IS NULL AND recipient = ANY($1::bytea[]) LIMIT $2;

-- name: store_roots
UPDATE session SET roots = $3, wrap_key = $4
 WHERE session = $1 AND issuer = $2 AND wrap_key IS NOT DISTINCT FROM $5;

-- name: refuse
UPDATE session SET refusal = $3 WHERE session = $1 AND issuer = $2 AND roots IS NULL;

-- name: wrapped_under
SELECT session, issuer, record, roots, wrap_key, owner, refusal FROM session WHERE wrap_key = $1 LIMIT $2;

-- name: settled
-- Whether every session that was sealed to a KEM key has been stored or refused, $2 being when the last one could come.
SELECT EXISTS (SELECT 1 FROM sessions_read WHERE at > $2)
   AND NOT EXISTS (SELECT 1 FROM session WHERE recipient = $1 AND roots IS NULL AND refusal IS NULL);
