-- name: state
-- With the bundle on the edge, if it has entries; its length is where the next entry begins.
SELECT s.size, s.root, s.logged_at, b.opened, length(b.entries) AS open_bytes
  FROM log_state s
  LEFT JOIN log_bundle b ON s.size % 256 <> 0 AND b.number = s.size / 256
 WHERE s.id = 1;

-- name: set_state
INSERT INTO log_state (id, size, root, logged_at) VALUES (1, $1, $2, $3)
ON CONFLICT (id) DO UPDATE SET size = EXCLUDED.size, root = EXCLUDED.root, logged_at = EXCLUDED.logged_at;

-- name: partitions
SELECT log_partitions($1);

-- name: add_bundle
INSERT INTO log_bundle (number, opened, starts, logged_at, entries) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (number, opened) DO UPDATE
   SET starts = log_bundle.starts || EXCLUDED.starts, logged_at = log_bundle.logged_at || EXCLUDED.logged_at,
       entries = log_bundle.entries || EXCLUDED.entries;

-- name: add_tiles
INSERT INTO log_tile (level, number, hashes) SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])
ON CONFLICT (level, number) DO UPDATE SET hashes = EXCLUDED.hashes;

-- name: add_terms
-- Of the bundle on the edge, which has terms already.
INSERT INTO log_term (term, day, bundle, bits)
SELECT * FROM unnest($1::bigint[], $2::date[], $3::integer[], $4::bit(256)[])
ON CONFLICT (term, day, bundle) DO UPDATE SET bits = log_term.bits | EXCLUDED.bits;

-- name: add_words
INSERT INTO log_word (dimension, value) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING;

-- name: publish
-- A checkpoint that witnesses have signed is not taken back by the same one without their signatures.
INSERT INTO log_checkpoint (id, size, root, note, published_at) VALUES (1, $1, $2, $3, now())
ON CONFLICT (id) DO UPDATE
   SET size = EXCLUDED.size, root = EXCLUDED.root, published_at = EXCLUDED.published_at,
       note = CASE WHEN log_checkpoint.cosigned_size = EXCLUDED.size AND log_checkpoint.cosigned IS NOT NULL
                   THEN log_checkpoint.cosigned ELSE EXCLUDED.note END;

-- name: published
SELECT size, note FROM log_checkpoint WHERE id = 1;

-- name: cosign
UPDATE log_checkpoint
   SET cosigned_size = $1, cosigned = $2, note = CASE WHEN size = $1 THEN $2 ELSE note END
 WHERE id = 1;
