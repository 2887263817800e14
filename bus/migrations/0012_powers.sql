-- The bus's operator (主管部门) is a department like others, and acts with its own keys.
ALTER TABLE org ADD operator boolean NOT NULL DEFAULT false;

-- The powers to issue become documents, like the powers to open (kind 'power', right 'ISSUE'). Their grantor is the
-- operator, whose code only the bus's folder has: `deptbus up` fills it in, with an entry in the trail, before any process
-- starts. Until then they give nobody anything.
WITH power AS MATERIALIZED (SELECT gen_random_uuid() AS id, item, uscc, region FROM issuer)
INSERT INTO rule (id, kind, revision, state, grantor, grantee, item, body)
SELECT id, 'power', 1, 'ACTIVE', '', uscc, '',
       jsonb_build_object(
           'id', id, 'right', 'ISSUE', 'grantor', '', 'grantee', uscc, 'items', jsonb_build_array(item),
           'purposes', '[]'::jsonb,
           'regions', CASE WHEN region = '' THEN '[]'::jsonb ELSE jsonb_build_array(region) END,
           'valid_from', '2020-01-01', 'valid_until', NULL, 'basis', '')
  FROM power;
DROP TABLE issuer;
CREATE INDEX rule_power ON rule (grantee) WHERE kind = 'power';

-- Who issues what, where, by which power: a row for each item and region of it, '' the whole country. `by_law` (权力清单)
-- if the operator entered it, else another department delegated it (授权). Whether its days have come is not asked here.
CREATE VIEW issuer AS
SELECT i.item, r.grantee AS uscc, COALESCE(g.region, '') AS region, r.state,
       (r.body->>'valid_from')::date AS valid_from, (r.body->>'valid_until')::date AS valid_until,
       EXISTS (SELECT 1 FROM org o WHERE o.uscc = r.grantor AND o.operator) AS by_law
  FROM rule r
 CROSS JOIN LATERAL jsonb_array_elements_text(r.body->'items') AS i(item)
  LEFT JOIN LATERAL jsonb_array_elements_text(r.body->'regions') AS g(region) ON true
 WHERE r.kind = 'power' AND r.body->>'right' = 'ISSUE';

-- One entry of an item is published, and one at most is on its way there.
CREATE UNIQUE INDEX rule_entry ON rule (item, (state = 'PUBLISHED')) WHERE kind = 'item' AND state <> 'RETIRED';

-- The department in whose power a record was issued, where that is not its issuer: who delegated it. It is the provider.
ALTER TABLE record ADD authority text;
