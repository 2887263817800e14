-- name: keep
INSERT INTO revision_outbox (value) VALUES ($1);

-- name: waiting
-- Gateways take different rows; one that dies gives its own back.
SELECT id, value FROM revision_outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED;

-- name: forget
DELETE FROM revision_outbox WHERE id = ANY($1::bigint[]);
