-- name: departments
-- Who may issue and read what on a day (`$1`, in UTC+8). A power to open reaches what its grantor's agreements share;
-- a grantor that is suspended shares nothing. The sum of limits is null where an agreement has none.
WITH agreed AS MATERIALIZED (
     SELECT a.grantee, a.item, (a.body->>'records_a_day')::bigint AS records
       FROM rule a
      WHERE a.kind = 'agreement' AND a.state = 'ACTIVE' AND a.body->>'mode' = 'STREAM'
        AND (a.body->>'valid_from')::date <= $1 AND COALESCE((a.body->>'valid_until')::date, $1) >= $1
        AND COALESCE((a.body->>'purpose_until')::date, $1) >= $1),
     opens AS (
     SELECT grantee, item, records FROM agreed
     UNION ALL
     SELECT p.grantee, i.item, a.records
       FROM rule p CROSS JOIN LATERAL jsonb_array_elements_text(p.body->'items') AS i(item)
       JOIN agreed a ON a.grantee = p.grantor AND a.item = i.item
       JOIN org g ON g.uscc = p.grantor AND NOT g.suspended
      WHERE p.kind = 'power' AND p.state = 'ACTIVE' AND p.body->>'right' = 'OPEN'
        AND (p.body->>'valid_from')::date <= $1 AND COALESCE((p.body->>'valid_until')::date, $1) >= $1),
     opened AS (
     SELECT grantee, array_agg(DISTINCT item) AS items,
            CASE WHEN bool_and(records IS NOT NULL) THEN sum(records)::bigint END AS records
       FROM opens GROUP BY grantee),
     issued AS (
     SELECT uscc, array_agg(DISTINCT item) AS items FROM issuer
      WHERE state = 'ACTIVE' AND valid_from <= $1 AND COALESCE(valid_until, $1) >= $1 GROUP BY uscc)
SELECT o.uscc, o.suspended, o.auditor, o.own_gateway, COALESCE(i.items, '{}') AS issues, COALESCE(e.items, '{}') AS opens, e.records
  FROM org o LEFT JOIN issued i ON i.uscc = o.uscc LEFT JOIN opened e ON e.grantee = o.uscc
 WHERE $2::text IS NULL OR o.uscc = $2;
