-- name: issues
-- By law, now or once: what it issued then is still its own to share.
SELECT EXISTS (SELECT 1 FROM issuer WHERE item = $1 AND uscc = $2 AND by_law);

-- name: known
SELECT EXISTS (SELECT 1 FROM org WHERE uscc = $1);

-- name: covering
-- Hashes of what shares any of these items with a recipient: what a consent is given under.
SELECT hash, revision, state, id, body FROM rule
 WHERE kind = 'agreement' AND grantee = $1 AND item = ANY($2::text[])
   AND state NOT IN ('REFUSED', 'EXPIRED', 'TERMINATED') ORDER BY id;
