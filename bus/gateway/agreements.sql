-- name: issues
-- By law, now or once: what it issued then is still its own to share.
SELECT EXISTS (SELECT 1 FROM issuer WHERE item = $1 AND uscc = $2 AND by_law);

-- name: known
SELECT EXISTS (SELECT 1 FROM org WHERE uscc = $1);
