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

-- name: erasures_started
-- What the log says of erasures counts in a database that does not know them yet: one that was restored.
INSERT INTO erasure (record, by, basis, started_at, entry)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::timestamptz[], $5::bytea[])
ON CONFLICT (record) DO UPDATE SET entry = COALESCE(erasure.entry, EXCLUDED.entry);

-- name: erasures_complete
UPDATE erasure SET completed_at = COALESCE(completed_at, now()) WHERE record = ANY($1::bytea[]);

-- name: take_ends
-- A rule that the log knows a later revision of, which closed it: only in a database that was restored.
WITH ended AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
               AS e(id, revision, act, state, author, reason, at)
), closed AS (
    UPDATE rule AS r
       SET revision = e.revision, state = e.state, since = e.at,
           until = CASE WHEN e.state IN ('SUSPENDED', 'PAUSED') THEN r.until END
      FROM ended AS e
     WHERE r.id = e.id AND r.revision < e.revision
 RETURNING r.id
)
INSERT INTO rule_act (rule, revision, act, state, author, reason, at)
SELECT e.id, e.revision, e.act, e.state, e.author, e.reason, e.at FROM ended AS e JOIN closed USING (id)
ON CONFLICT DO NOTHING;

-- name: add_bundle
INSERT INTO log_bundle (number, opened, starts, logged_at, entries) VALUES ($1, $2, $3, $4, $5);

-- name: add_to_bundle
-- The bundle on the edge goes on, if it is as it was left: $6 entries in $7 bytes.
UPDATE log_bundle
   SET starts = starts || $3::integer[], logged_at = logged_at || $4::timestamptz[], entries = entries || $5::bytea
 WHERE number = $1 AND opened = $2 AND cardinality(starts) = $6 AND length(entries) = $7
RETURNING number;

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
-- A checkpoint is not taken back by a smaller one (nothing is returned then), nor, once witnesses have signed it, by
-- the same one without their signatures.
INSERT INTO log_checkpoint (id, size, root, note, published_at) VALUES (1, $1, $2, $3, now())
ON CONFLICT (id) DO UPDATE
   SET size = EXCLUDED.size, root = EXCLUDED.root, published_at = EXCLUDED.published_at,
       note = CASE WHEN log_checkpoint.cosigned_size = EXCLUDED.size AND log_checkpoint.cosigned IS NOT NULL
                   THEN log_checkpoint.cosigned ELSE EXCLUDED.note END
 WHERE log_checkpoint.size <= EXCLUDED.size
RETURNING size;

-- name: oldest_kept
-- The bundle in which the time lies: the last one that was begun before its day ended.
SELECT number, logged_at FROM log_bundle WHERE opened <= $1 ORDER BY number DESC LIMIT 1;

-- name: set_minimum
UPDATE log_state SET minimum = $1 WHERE id = 1 AND minimum <> $1;

-- name: published
SELECT size, note FROM log_checkpoint WHERE id = 1;

-- name: cosign
UPDATE log_checkpoint
   SET cosigned_size = $1, cosigned = $2, note = CASE WHEN size = $1 THEN $2 ELSE note END
 WHERE id = 1;
