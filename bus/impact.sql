-- name: versions
-- Of licences: their records, in order.
SELECT r.leaf_hash AS record, r.licence, r.sequence FROM record r WHERE r.licence = ANY($1::bytea[])
 ORDER BY r.licence, r.sequence;

-- name: children
-- Records that name in their parents a version of a licence, from one sequence on and before another. $1 numbers what is
-- asked for.
SELECT want.number, p.parent, v.licence AS parent_licence, c.leaf_hash AS record, c.licence, c.sequence, c.item,
       c.issuer, c.operation, c.admitted_at, l.status
  FROM unnest($1::integer[], $2::bytea[], $3::bigint[], $4::bigint[]) AS want(number, licence, first, before)
  JOIN record v ON v.licence = want.licence AND v.sequence >= want.first AND v.sequence < want.before
  JOIN parent p ON p.parent = v.leaf_hash
  JOIN record c ON c.leaf_hash = p.child
  JOIN licence l ON l.licence = c.licence
 ORDER BY c.admitted_at, c.leaf_hash, p.parent
 LIMIT $5;

-- name: sets
-- The granted sets that hold a version of these licences, and which.
SELECT m.entry, m.record, r.licence FROM record r JOIN set_member m ON m.record = r.leaf_hash
  JOIN set_grant g ON g.entry = m.entry AND g.granted
 WHERE r.licence = ANY($1::bytea[]) ORDER BY m.entry, m.position;
