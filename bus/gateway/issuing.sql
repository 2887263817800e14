-- name: has
SELECT EXISTS (SELECT 1 FROM issuer
                WHERE item = $1 AND uscc = $2 AND region = $3 AND by_law AND state = 'ACTIVE');

-- name: former
-- Powers of before they were documents: nobody has given them yet.
SELECT id, state, body FROM rule WHERE kind = 'power' AND grantor = '' ORDER BY id;

-- name: give
UPDATE rule SET grantor = $2, hash = $3, body = $4 WHERE id = $1;

-- name: standing
SELECT id, kind, revision, state, hash, body, since FROM rule
 WHERE kind = 'item' OR (kind = 'power' AND body->>'right' = 'ISSUE')
 ORDER BY since, id;
