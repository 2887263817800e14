-- name: freshness
-- Records that were admitted from $1 until before $2, by $3 or of these issuers and items.
SELECT issuer, item, count(*) AS records, max(occurred_at) AS newest_occurred_at, max(admitted_at) AS newest_admitted_at,
       percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY admitted_at - occurred_at) AS percentiles
  FROM record
 WHERE admitted_at >= $1 AND admitted_at < $2
   AND (issuer = $3 OR (issuer, item) IN (SELECT * FROM unnest($4::text[], $5::text[])))
 GROUP BY issuer, item ORDER BY issuer <> $3, issuer, item;

-- name: issued
-- New certificates, those of them that name what they rest on, and whether all such names are known yet.
SELECT count(*) AS issued,
       count(*) FILTER (WHERE EXISTS (SELECT 1 FROM parent p WHERE p.child = r.leaf_hash)) AS with_source,
       NOT EXISTS (SELECT 1 FROM parent_scan) AS complete
  FROM record r
 WHERE r.admitted_at >= $1 AND r.admitted_at < $2 AND r.issuer = $3 AND r.operation = 'ISSUED';

-- name: source_unnamed
-- New certificates that name nothing, though another item ($4, from $5 until before $6) could be received at the time.
SELECT r.leaf_hash AS record, count(*) OVER () AS total
  FROM record r
 WHERE r.admitted_at >= $1 AND r.admitted_at < $2 AND r.issuer = $3 AND r.operation = 'ISSUED'
   AND NOT EXISTS (SELECT 1 FROM parent p WHERE p.child = r.leaf_hash)
   AND EXISTS (SELECT 1 FROM unnest($4::text[], $5::timestamptz[], $6::timestamptz[]) AS agreed(item, begin, until)
                WHERE agreed.item <> r.item AND r.admitted_at >= agreed.begin AND r.admitted_at < agreed.until)
 ORDER BY r.admitted_at DESC, r.leaf_hash LIMIT $7;

-- name: agreements
-- What a department may receive, since it was put to use; an agreement that was ended counts until then. One of before
-- its acts were kept was in use from its first day.
SELECT id, item, GREATEST((body->>'valid_from')::date::timestamp AT TIME ZONE 'Asia/Shanghai',
             (SELECT min(a.at) FROM rule_act a WHERE a.rule = rule.id AND a.act = 'ACTIVATE')) AS begin,
       LEAST(((body->>'valid_until')::date + 1)::timestamp AT TIME ZONE 'Asia/Shanghai',
             CASE WHEN state = 'ACTIVE' THEN '9999-01-01' ELSE since END) AS end
  FROM rule WHERE kind = 'agreement' AND grantee = $1 AND state IN ('ACTIVE', 'SUSPENDED', 'EXPIRED', 'TERMINATED')
   AND (NOT EXISTS (SELECT 1 FROM rule_act a WHERE a.rule = rule.id AND a.act = 'SUBMIT')
        OR EXISTS (SELECT 1 FROM rule_act a WHERE a.rule = rule.id AND a.act = 'ACTIVATE'))
 ORDER BY id LIMIT $2;

-- name: named
-- New certificates and each licence of another issuer that they name as what they rest on.
SELECT DISTINCT r.leaf_hash AS record, v.licence
  FROM record r
  JOIN parent p ON p.child = r.leaf_hash
  JOIN record v ON v.leaf_hash = p.parent AND v.issuer <> $3
 WHERE r.admitted_at >= $1 AND r.admitted_at < $2 AND r.issuer = $3 AND r.operation = 'ISSUED'
 ORDER BY r.leaf_hash, v.licence LIMIT $4;

-- name: opened
-- Those of the licences ($1, terms $2) of which some entry has the terms $3 and $4, too: up to a bundle ($5), and in that
-- one what $6 marks.
SELECT want.licence
  FROM unnest($1::bytea[], $2::bigint[]) AS want(licence, term)
 WHERE EXISTS (
       SELECT 1 FROM log_term l
         JOIN log_term c ON c.term = $3 AND c.day = l.day AND c.bundle = l.bundle
         JOIN log_term g ON g.term = $4 AND g.day = l.day AND g.bundle = l.bundle
        WHERE l.term = want.term AND l.bundle <= $5
          AND bit_count(l.bits & c.bits & g.bits & CASE WHEN l.bundle = $5 THEN $6 ELSE ~0::bit(256) END) > 0);
