-- name: one
SELECT id, revision, state, hash, body FROM rule WHERE id = $1 AND kind = 'item';

-- name: entries
SELECT id, revision, state, hash, body FROM rule WHERE kind = 'item' ORDER BY item, since DESC, id LIMIT $1;

-- name: of_item
SELECT id, revision, state, hash, body FROM rule WHERE kind = 'item' AND item = $1;

-- name: published
SELECT id, revision, state, hash, body FROM rule
 WHERE kind = 'item' AND item = $1 AND state = 'PUBLISHED' AND id <> $2 FOR UPDATE;

-- name: in_preparation
SELECT EXISTS (SELECT 1 FROM rule WHERE kind = 'item' AND item = $1 AND state IN ('DRAFT', 'REVIEWED'));

-- name: providers
SELECT i.item, i.uscc, o.name, i.region, i.by_law, i.valid_from, i.valid_until
  FROM issuer i JOIN org o ON o.uscc = i.uscc
 WHERE i.state = 'ACTIVE' AND i.item = ANY($1::text[])
 ORDER BY i.item, i.region, i.uscc, i.by_law DESC LIMIT $2;
