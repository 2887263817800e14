-- name: add_parents
INSERT INTO parent (parent, child) SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING;

-- name: add_triggers
INSERT INTO impact (record, licence, since)
SELECT record, licence, clock_timestamp() FROM unnest($1::bytea[], $2::bytea[]) AS due(record, licence)
ON CONFLICT DO NOTHING;

-- name: late_children
-- $1 are records that name parents: whatever was said of a licence that one of them follows from is looked at again.
-- At most $2 steps up; a licence that was met is not gone up from again at the same step.
WITH RECURSIVE above (licence, depth) AS (
       SELECT r.licence, 1 FROM parent p JOIN record r ON r.leaf_hash = p.parent WHERE p.child = ANY($1::bytea[])
        UNION
       SELECT r.licence, a.depth + 1
         FROM above a
         JOIN record v ON v.licence = a.licence
         JOIN parent p ON p.child = v.leaf_hash
         JOIN record r ON r.leaf_hash = p.parent
        WHERE a.depth < $2 AND r.licence <> a.licence)
UPDATE impact SET pending = true, since = clock_timestamp() WHERE licence IN (SELECT licence FROM above);

-- name: scanned
SELECT after FROM parent_scan WHERE id = 1;

-- name: unscanned
SELECT leaf_hash, value FROM record WHERE leaf_hash > $1 ORDER BY leaf_hash LIMIT $2;

-- name: scan_on
UPDATE parent_scan SET after = $1 WHERE id = 1;

-- name: scan_done
DELETE FROM parent_scan WHERE id = 1;

-- name: how_many
SELECT count(*) FROM impact WHERE pending;

-- name: pending
SELECT i.record, i.licence, i.since, i.opened_before, i.sent, r.sequence, r.item, r.issuer, r.operation, r.occurred_at,
       r.entry AS admitted
  FROM impact i JOIN record r ON r.leaf_hash = i.record
 WHERE i.pending ORDER BY i.since LIMIT $1;

-- name: integrated
-- How far the audit topic is in the log, and how large that makes it. One statement, one snapshot: they belong together.
SELECT p.next_offset, s.size FROM position p, log_state s
 WHERE p.topic = $1 AND p.partition = 0 AND s.id = 1;

-- name: looked_at
UPDATE impact SET opened_before = $2 WHERE record = ANY($1::bytea[]) AND opened_before IS NULL;

-- name: done
-- Unless a record came meanwhile that makes it due again.
UPDATE impact SET pending = impact.since <> was.since, sent = was.sent
  FROM unnest($1::bytea[], $2::timestamptz[], $3::integer[]) AS was(record, since, sent)
 WHERE impact.record = was.record;
