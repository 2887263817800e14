-- name: admitted
SELECT CASE WHEN r.conflict THEN 'CONFLICT' ELSE 'ADMITTED' END AS state, r.entry, r.admitted_at,
       l.sequence > r.sequence AS superseded, l.status, NULL AS code, r.value, 1 AS rank
  FROM record r JOIN licence l ON l.licence = r.licence WHERE r.leaf_hash = $1
UNION ALL
SELECT 'CONFLICT', c.entry, c.found_at, false, '', NULL, c.value, 2 FROM conflict c WHERE c.leaf_hash = $1
UNION ALL
SELECT 'REFUSED', NULL, f.refused_at, false, '', f.code, NULL, 3 FROM refusal f WHERE f.leaf_hash = $1
 ORDER BY rank LIMIT 1;

-- name: admitted_since
SELECT r.leaf_hash, r.value, r.admitted_at FROM record r
 WHERE r.issuer = $1 AND r.admitted_at >= $2 ORDER BY r.admitted_at, r.leaf_hash;

-- name: sealed
-- A record as received, and whether this caller may read its topic: its issuer or provider, an auditor, a party to an
-- agreement.
SELECT r.value, r.item, r.issuer,
       $2 IN (r.issuer, COALESCE(r.authority, r.issuer))
       OR EXISTS (SELECT 1 FROM org o WHERE o.uscc = $2 AND o.auditor)
       OR EXISTS (SELECT 1 FROM rule a
                   WHERE a.kind = 'agreement' AND a.grantee = $2 AND a.grantor = COALESCE(r.authority, r.issuer)
                     AND a.item = r.item
                     AND a.state = 'ACTIVE') AS may
  FROM record r WHERE r.leaf_hash = $1;

-- name: in_force
-- The newest version of each of the subject's licences by the end of a day (UTC+8), if it was in force then.
SELECT newest.value, newest.leaf_hash, newest.operation, newest.valid_from, newest.valid_until
  FROM licence_subject s
  JOIN licence l ON l.licence = s.licence AND l.item = $2
 CROSS JOIN LATERAL (
       SELECT r.value, r.leaf_hash, r.operation, r.valid_from, r.valid_until
         FROM record r
        WHERE r.licence = s.licence AND r.occurred_at < ($3::date + 1)::timestamp AT TIME ZONE 'Asia/Shanghai'
        ORDER BY r.sequence DESC LIMIT 1) AS newest
 WHERE s.pseudonym = $1
   AND (newest.valid_from IS NULL OR newest.valid_from <= $3)
   AND (newest.valid_until IS NULL OR newest.valid_until >= $3)
 ORDER BY newest.leaf_hash
 LIMIT $4;

-- name: version
SELECT r.leaf_hash AS record, r.licence, r.sequence, r.operation, r.item, r.issuer,
       COALESCE(r.authority, r.issuer) AS provider, r.entry, r.value
  FROM record r WHERE r.leaf_hash = $1;

-- name: later_versions
SELECT r.leaf_hash AS record, r.licence, r.sequence, r.operation, r.item, r.issuer,
       COALESCE(r.authority, r.issuer) AS provider, r.entry, r.value
  FROM record r WHERE r.licence = $1 AND r.sequence > $2 ORDER BY r.sequence;
