-- name: providers
-- Of the items whose entry in the catalogue is published today (`$1`, in UTC+8): no records of others come. A delegate's
-- records are its grantor's to share.
SELECT i.item, i.uscc, i.region
  FROM issuer i JOIN org o ON o.uscc = i.uscc JOIN rule e ON e.kind = 'item' AND e.item = i.item
 WHERE NOT o.suspended AND i.by_law AND i.state = 'ACTIVE' AND i.valid_from <= $1
   AND COALESCE(i.valid_until, $1) >= $1 AND e.state = 'PUBLISHED' AND (e.body->>'valid_from')::date <= $1
   AND COALESCE((e.body->>'valid_until')::date, $1) >= $1
 ORDER BY i.item, i.region, i.uscc;

-- name: agreed
-- What agreements in force open: `$2` are the purpose and those that it lies inside of, `$3` the day in UTC+8, `$4` the
-- form's region if it is known: an agreement of a part of it is no agreement for the form.
SELECT DISTINCT a.item, s.section
  FROM rule a CROSS JOIN jsonb_array_elements_text(a.body->'sections') AS s(section)
 WHERE a.kind = 'agreement' AND a.grantee = $1 AND a.state = 'ACTIVE' AND a.body->'purposes' ?| $2::text[]
   AND (a.body->>'valid_from')::date <= $3
   AND COALESCE((a.body->>'valid_until')::date, $3) >= $3
   AND COALESCE((a.body->>'purpose_until')::date, $3) >= $3
   AND ($4 = '' OR a.body->'regions' = '[]'
        OR EXISTS (SELECT FROM jsonb_array_elements_text(a.body->'regions') AS r(region) WHERE starts_with($4, r.region)));
