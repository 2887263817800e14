-- name: sessions
SELECT s.session, s.issuer, s.record, s.roots, s.wrap_key
  FROM session s JOIN unnest($1::bytea[], $2::text[]) AS want(session, issuer)
    ON s.session = want.session AND s.issuer = want.issuer;

-- name: unwrapped
SELECT session, issuer, record, roots, wrap_key FROM session WHERE roots IS NULL AND recipient = ANY($1::bytea[]) LIMIT $2;

-- name: store_roots
UPDATE session SET roots = $3, wrap_key = $4 WHERE session = $1 AND issuer = $2 AND roots IS NULL;
