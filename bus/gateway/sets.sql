-- name: values
-- Admitted records as received, for a set.
SELECT leaf_hash, value FROM record WHERE leaf_hash = ANY($1::bytea[]) AND NOT conflict;

-- name: candidates
-- The newest versions of an item's licences in a provider's region that are in force, in the order of their leaf hashes.
SELECT r.leaf_hash FROM record r JOIN licence l ON l.licence = r.licence AND l.sequence = r.sequence
 WHERE r.item = $1 AND COALESCE(r.authority, r.issuer) = $2 AND r.region LIKE $3 || '%' AND NOT r.conflict
   AND l.status = 'VALID' AND (l.valid_from IS NULL OR l.valid_from <= $4)
   AND (l.valid_until IS NULL OR l.valid_until >= $4) AND r.leaf_hash > $5
 ORDER BY r.leaf_hash LIMIT $6;

-- name: may_match
SELECT EXISTS (SELECT 1 FROM rule WHERE kind = 'agreement' AND grantee = $1 AND grantor = $2 AND item = $3
                                    AND state = 'ACTIVE' AND body->>'set_limit' IS NOT NULL);

-- name: put
INSERT INTO set_grant (entry, root, consumer, purpose, ground, citation, sections, size)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: put_member
INSERT INTO set_member (entry, position, record, subjects) VALUES ($1, $2, $3, $4);

-- name: put_subject
INSERT INTO set_subject (subject, entry, position) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: grant
UPDATE set_grant SET granted = true WHERE entry = $1;

-- name: one
SELECT entry, root, consumer, purpose, ground, citation, sections, size, granted FROM set_grant WHERE entry = $1;

-- name: members_among
SELECT record FROM set_member WHERE entry = $1 AND record = ANY($2::bytea[]);

-- name: members
SELECT position, record, subjects FROM set_member WHERE entry = $1 ORDER BY position;

-- name: of_subjects
SELECT DISTINCT entry FROM set_subject WHERE subject = ANY($1::bytea[]) ORDER BY entry LIMIT $2;

-- name: of_record
SELECT DISTINCT entry FROM set_member WHERE record = $1 ORDER BY entry LIMIT $2;

-- name: places
SELECT s.entry, s.position, m.record FROM set_subject s JOIN set_member m ON m.entry = s.entry AND m.position = s.position
 WHERE s.entry = ANY($1::bytea[]) AND s.subject = ANY($2::bytea[]) ORDER BY s.entry, s.position;
